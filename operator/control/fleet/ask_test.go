// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// answerer answers by a function.
type answerer func(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error

func (a answerer) Answer(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error {
	return a(ctx, q, send)
}

// sends returns an answerer that sends pieces.
func sends(pieces ...string) answerer {
	return func(_ context.Context, _ observe.Query, send func(json.RawMessage) error) error {
		for _, piece := range pieces {
			if err := send(json.RawMessage(piece)); err != nil {
				return err
			}
		}
		return nil
	}
}

// answering is for newNode.
func answering(a observe.Answerer) func(*agent.Options) {
	return func(o *agent.Options) { o.Answerer = a }
}

var (
	statusQuery = observe.Query{Status: &observe.StatusQuery{}}
	flowsQuery  = observe.Query{Flows: &observe.FlowsQuery{}}
	followQuery = observe.Query{Flows: &observe.FlowsQuery{Follow: true}}
)

// asker returns who asks nodes as commands do, but without TLS.
func (o *operator) asker(t testing.TB, nodes ...string) *transport.Asker {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	g := transport.NewServer(func(ctx context.Context, r *wire.AskRequest, send func(*wire.AskReply) error) error {
		var q observe.Query
		if err := json.Unmarshal(r.Query, &q); err != nil {
			return err
		}
		return o.Ask(ctx, q, r.Nodes, send)
	}, transport.Options{})
	go func() { served <- transport.Serve(ctx, g, l) }()
	conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return transport.NewAsker(conn, nodes)
}

// ask returns the pieces by node, and why nodes have failed.
func ask(t testing.TB, a observe.Asker, q observe.Query) (pieces map[string][]string, reasons map[string]string) {
	t.Helper()
	pieces = map[string][]string{}
	err := a.Ask(t.Context(), q, func(node string, piece json.RawMessage) error {
		pieces[node] = append(pieces[node], string(piece))
		return nil
	})
	if failed, is := errors.AsType[*observe.NodesError](err); is {
		return pieces, failed.Reasons
	}
	if err != nil {
		t.Fatal(err)
	}
	return pieces, nil
}

// connected waits until agents of application blue are connected.
func (o *operator) connected(t testing.TB, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		eventually(t, func() string {
			if r, _ := o.report(node, "blue"); !r.Connected {
				return node + " is not connected"
			}
			return ""
		})
	}
}

func TestAskNodes(t *testing.T) {
	o := newOperator(t, "", nil)
	large := `"` + strings.Repeat("x", 3<<20) + `"`
	newNode(t, o, "n1", answering(sends(`{"n":1}`, large, `{"n":2}`)))
	newNode(t, o, "n2", answering(answerer(func(context.Context, observe.Query, func(json.RawMessage) error) error {
		return errors.New("the maps are away")
	})))
	o.connected(t, "n1", "n2")
	pieces, reasons := ask(t, o.asker(t), statusQuery)
	if fmt.Sprint(pieces) != fmt.Sprint(map[string][]string{"n1": {`{"n":1}`, large, `{"n":2}`}}) {
		t.Errorf("%d nodes have answered, n1 with %d pieces", len(pieces), len(pieces["n1"]))
	}
	if want := map[string]string{"n2": "the maps are away", "n3": "its agent is not connected"}; fmt.Sprint(reasons) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", reasons, want)
	}
	hostile := "\x1b[2J" + strings.Repeat("x", 10_000)
	pieces, reasons = ask(t, o.asker(t, "n1", "n1", hostile), statusQuery)
	if len(pieces["n1"]) != 3 || len(reasons) != 1 || !strings.Contains(fmt.Sprint(reasons), "no such node") || len(fmt.Sprint(reasons)) > 5000 {
		t.Errorf("%d pieces, %q", len(pieces["n1"]), reasons)
	}
	f := newFollower(t, "", nil)
	if err := f.asker(t).Ask(t.Context(), statusQuery, nil); err == nil || !strings.Contains(err.Error(), "not the leader") {
		t.Errorf("a replica that does not lead: %v", err)
	}
}

// An asker that does not read holds up neither what is published nor other askers,
// and its answer waits on the node.
func TestSlowAskerHoldsUpNobody(t *testing.T) {
	o := newOperator(t, "", nil)
	var sent atomic.Int64
	piece := `"` + strings.Repeat("x", 1000) + `"`
	newNode(t, o, "n1", answering(answerer(func(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error {
		if q.Status != nil {
			return send(json.RawMessage(`1`))
		}
		for ctx.Err() == nil {
			if err := send(json.RawMessage(piece)); err != nil {
				return err
			}
			sent.Add(int64(len(piece)))
		}
		return ctx.Err()
	})))
	o.connected(t, "n1")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- o.Ask(ctx, followQuery, []string{"n1"}, func(*wire.AskReply) error {
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	eventually(t, func() string {
		if sent.Load() < maxWindow/2 {
			return "nothing is sent"
		}
		return ""
	})
	for i := range 20 {
		o.serves(t, "n1", o.Publish(web(5+i)), web(5+i))
		if pieces, reasons := ask(t, o.asker(t), statusQuery); fmt.Sprint(pieces) != "map[n1:[1]]" {
			t.Errorf("got %v, %v", pieces, reasons)
		}
	}
	if n := sent.Load(); n > maxWindow {
		t.Errorf("the agent has sent %d bytes to an asker that does not read", n)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothingOpen(t, o)
}

// nothingOpen waits until no agent has a question to answer.
func nothingOpen(t *testing.T, o *operator) {
	t.Helper()
	eventually(t, func() string {
		o.mu.Lock()
		defer o.mu.Unlock()
		for m, c := range o.sessions {
			c.questions.mu.Lock()
			n := len(c.questions.open)
			c.questions.mu.Unlock()
			if n > 0 {
				return fmt.Sprintf("%v still has %d questions", m, n)
			}
		}
		return ""
	})
}

// A hundred ask at once: each gets an answer, or hears that there are too many.
func TestManyAskAtOnce(t *testing.T) {
	o := newOperator(t, "", nil)
	for _, name := range []string{"n1", "n2", "n3"} {
		newNode(t, o, name, answering(sends(`{}`, `"`+strings.Repeat("x", 100_000)+`"`)))
	}
	o.connected(t, "n1", "n2", "n3")
	results := make(chan error)
	for range 100 {
		go func() {
			n := 0
			err := o.Ask(t.Context(), statusQuery, nil, func(r *wire.AskReply) error {
				if r.End {
					n++
				}
				if r.Error != "" && !strings.Contains(r.Error, "already") {
					return errors.New(r.Error)
				}
				return nil
			})
			if err == nil && n != 3 {
				err = fmt.Errorf("%d nodes have ended", n)
			}
			results <- err
		}()
	}
	for range 100 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	nothingOpen(t, o)
}

func TestAgentOfEarlierVersion(t *testing.T) {
	o := newOperator(t, "", nil)
	newRaw(t, o, "n1/x").hello("n1", "blue", nil, nil)
	o.connected(t, "n1")
	if _, reasons := ask(t, o.asker(t, "n1"), statusQuery); !strings.Contains(reasons["n1"], "of a version that answers no questions") {
		t.Errorf("got %v", reasons)
	}
}

// While a node is upgraded, both agents tell of their flows, and the one that serves
// new ones tells the status.
func TestAskDuringUpgrade(t *testing.T) {
	o := newOperator(t, "", nil)
	o.SetSettings("green", Settings{SNAT: lb.PortRange{First: 20000, Last: 29999}, Drain: map[string]bool{"n1": true}})
	newNode(t, o, "n1", answering(sends(`"blue"`, `"`+strings.Repeat("b", 50_000)+`"`)))
	newNode(t, o, "n1", func(c *agent.Options) {
		c.Application, c.Answerer = "green", sends(`"green"`, `"`+strings.Repeat("g", 50_000)+`"`)
	})
	o.connected(t, "n1")
	eventually(t, func() string {
		if r, _ := o.report("n1", "green"); !r.Draining {
			return "green does not drain"
		}
		return ""
	})
	if pieces, reasons := ask(t, o.asker(t, "n1"), flowsQuery); len(pieces["n1"]) != 4 || reasons != nil {
		t.Errorf("%d pieces, %v", len(pieces["n1"]), reasons)
	}
	if pieces, reasons := ask(t, o.asker(t, "n1"), statusQuery); len(pieces["n1"]) != 2 || pieces["n1"][0] != `"blue"` || reasons != nil {
		t.Errorf("%d pieces, %v", len(pieces["n1"]), reasons)
	}
}

// Whatever ends an agent's stream ends its answers. The agent comes back although an
// answerer of it hangs.
func TestAnswerIsCut(t *testing.T) {
	for name, cut := range map[string]func(*operator, *proxy, *node){
		"agent dies":         func(_ *operator, _ *proxy, n *node) { go n.stop() },
		"connection lost":    func(_ *operator, p *proxy, _ *node) { p.cut() },
		"another epoch":      func(o *operator, _ *proxy, _ *node) { o.Lead(2) },
		"node is deselected": func(o *operator, _ *proxy, _ *node) { o.SetNodes([]Node{testNode(2)}) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t, "", nil)
			p := newProxy(t, o.address)
			hang := make(chan struct{})
			defer close(hang)
			n := newNode(t, o, "n1", func(c *agent.Options) {
				c.Operator = p.operator()
				c.Answerer = answerer(func(_ context.Context, q observe.Query, send func(json.RawMessage) error) error {
					if q.Status != nil {
						return send(json.RawMessage(`"back"`))
					}
					err := send(json.RawMessage(`"before"`))
					<-hang
					return err
				})
			})
			o.connected(t, "n1")
			var before []string
			err := o.asker(t, "n1").Ask(t.Context(), followQuery, func(_ string, piece json.RawMessage) error {
				before = append(before, string(piece))
				cut(o, p, n)
				return nil
			})
			failed, is := errors.AsType[*observe.NodesError](err)
			if fmt.Sprint(before) != `["before"]` || !is || !strings.Contains(failed.Reasons["n1"], "gone while it answered") {
				t.Errorf("got %v, %v", before, err)
			}
			if name != "connection lost" && name != "another epoch" {
				return
			}
			eventually(t, func() string {
				var got []string
				err := o.asker(t, "n1").Ask(t.Context(), statusQuery, func(_ string, piece json.RawMessage) error {
					got = append(got, string(piece))
					return nil
				})
				if fmt.Sprint(got) != `["back"]` {
					return fmt.Sprint(got, err)
				}
				return ""
			})
		})
	}
}

// rawAnswering is a connected raw agent that claims to answer.
func rawAnswering(t *testing.T, o *operator) *raw {
	t.Helper()
	r := newRaw(t, o, "n1/x")
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
		Node: "n1", Application: "blue", Status: &wire.Status{}, Answers: true,
	}}})
	o.connected(t, "n1")
	return r
}

func (r *raw) answer(a *wire.Answer) {
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Answer{Answer: a}})
}

// question returns the next question.
func (r *raw) question() *wire.Question {
	r.t.Helper()
	for {
		m, err := r.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		if q := m.GetQuestion(); q != nil {
			return q
		}
	}
}

// ended waits until the stream is refused.
func (r *raw) ended() error {
	for {
		if _, err := r.Recv(); err != nil {
			return err
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	for name, answer := range map[string]func(*raw, *wire.Question){
		"nobody asked": func(r *raw, q *wire.Question) { r.answer(&wire.Answer{Id: q.Id + 1, Data: []byte("1"), Last: true}) },
		"ends twice": func(r *raw, q *wire.Question) {
			r.answer(&wire.Answer{Id: q.Id, End: true})
			r.answer(&wire.Answer{Id: q.Id, End: true})
		},
		"larger than allowed": func(r *raw, q *wire.Question) {
			r.answer(&wire.Answer{Id: q.Id, Data: make([]byte, 60<<10)})
			r.answer(&wire.Answer{Id: q.Id, Data: make([]byte, 60<<10)})
		},
		"many of nothing": func(r *raw, q *wire.Question) {
			for range 10_000 {
				r.answer(&wire.Answer{Id: q.Id})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t, "", nil)
			r := rawAnswering(t, o)
			ctx, stop := context.WithCancel(t.Context())
			asked := make(chan error, 1)
			go func() {
				asked <- o.Ask(ctx, followQuery, []string{"n1"}, func(*wire.AskReply) error {
					if name == "ends twice" {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				})
			}()
			answer(r, r.question())
			if err := r.ended(); err == nil || o.refusedFor(ReasonProtocol) == 0 {
				eventually(t, func() string {
					if o.refusedFor(ReasonProtocol) == 0 {
						return fmt.Sprintf("not refused: %v", err)
					}
					return ""
				})
			}
			stop()
			if err := <-asked; err != nil { // as it may be ended before its end was told
				t.Log(err)
			}
		})
	}
}

// An agent that never answers is given up. What it says too late is left out. It has
// so many questions and no more.
func TestAgentThatNeverAnswers(t *testing.T) {
	o := newOperator(t, "", nil)
	o.o.Silence = 20 * time.Millisecond
	r := rawAnswering(t, o)
	questions := make(chan *wire.Question, 4*maxOpen)
	go func() {
		for {
			m, err := r.Recv()
			if err != nil {
				return
			}
			if q := m.GetQuestion(); q != nil {
				questions <- q
			}
		}
	}()
	eventually(t, func() string {
		_, reasons := ask(t, o.asker(t, "n1"), statusQuery)
		if why := reasons["n1"]; !strings.Contains(why, "32 questions to answer already") {
			if !strings.Contains(why, "said nothing for 20ms") {
				t.Fatalf("got %v", reasons)
			}
			return "it may have more questions"
		}
		return ""
	})
	for cancelled := 0; cancelled < maxOpen; {
		q := <-questions
		if !q.Cancel {
			continue
		}
		cancelled++
		r.answer(&wire.Answer{Id: q.Id, Data: []byte(`"late"`), Last: true})
		r.answer(&wire.Answer{Id: q.Id, End: true})
	}
	nothingOpen(t, o)
	if n := o.refusedFor(ReasonProtocol); n != 0 {
		t.Errorf("refused %d times", n)
	}
}
