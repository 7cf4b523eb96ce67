// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// answerer answers by a function.
type answerer func(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error

func (a answerer) Answer(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error {
	return a(ctx, q, send)
}

var question = observe.Query{Status: &observe.StatusQuery{}}

// serve serves what a handler answers, and returns a connection.
func serve(t *testing.T, h Handler, o Options) *grpc.ClientConn { return listenInMemory(t, h, o)() }

// listenInMemory serves what a handler answers, and returns a function that connects.
func listenInMemory(t *testing.T, h Handler, o Options) (dial func() *grpc.ClientConn) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, NewServer(h, o), l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

func TestAnswersOfAnySize(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, wire.MaxAnswer - 2, wire.MaxAnswer - 1, wire.MaxAnswer, 5<<20 + 1}
	conn := serve(t, Local(answerer(func(_ context.Context, q observe.Query, send func(json.RawMessage) error) error {
		if q.Status == nil {
			return errors.New("another question")
		}
		for _, size := range sizes {
			if err := send(json.RawMessage(`"` + strings.Repeat("x", size) + `"`)); err != nil {
				return err
			}
		}
		return errors.New("and then it went wrong")
	})), Options{})
	var got []int
	err := NewAsker(conn, nil).Ask(t.Context(), question, func(node string, piece json.RawMessage) error {
		if node != "" {
			t.Errorf("node %q", node)
		}
		got = append(got, len(piece)-2)
		return nil
	})
	if fmt.Sprint(got) != fmt.Sprint(sizes) || err == nil || err.Error() != "and then it went wrong" {
		t.Errorf("got %v, %v", got, err)
	}
	stop := errors.New("enough")
	if err := NewAsker(conn, nil).Ask(t.Context(), question, func(string, json.RawMessage) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an asker that has enough gets %v", err)
	}
	if err := NewAsker(conn, []string{"n1"}).Ask(t.Context(), question, nil); err == nil || !strings.Contains(err.Error(), "alone") {
		t.Errorf("asked for a node: %v", err)
	}
}

func TestNoQuestion(t *testing.T) {
	t.Parallel()
	conn := serve(t, Local(observe.Answers{}), Options{})
	for _, q := range []observe.Query{{}, question} {
		if err := NewAsker(conn, nil).Ask(t.Context(), q, nil); err == nil || !strings.Contains(err.Error(), "cannot answer") {
			t.Errorf("got %v", err)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"status":1}`, "\xff"} {
		stream, err := wire.NewObserveClient(conn).Ask(t.Context(), &wire.AskRequest{Query: []byte(text)})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Of a hundred askers as many are answered as there may be at a time. The others are
// told so at once, and nobody waits for those who never read.
func TestManyAskers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	dial := listenInMemory(t, Local(answerer(func(ctx context.Context, _ observe.Query, _ func(json.RawMessage) error) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	})), Options{})
	results := make(chan error)
	for range 50 {
		conn := dial()
		for range 2 {
			go func() { results <- NewAsker(conn, nil).Ask(t.Context(), question, nil) }()
		}
	}
	for range 100 - MaxQuestions {
		if err := <-results; err == nil || !strings.Contains(err.Error(), "ask again later") {
			t.Errorf("one too many: %v", err)
		}
	}
	close(release)
	for range MaxQuestions {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := NewAsker(dial(), nil).Ask(t.Context(), question, nil); err != nil {
		t.Errorf("when all is over: %v", err)
	}
}

// An asker that reads nothing is given up, and whoever answers it is freed.
func TestAskerThatNeverReads(t *testing.T) {
	t.Parallel()
	freed := make(chan error, 1)
	conn := serve(t, Local(answerer(func(_ context.Context, _ observe.Query, send func(json.RawMessage) error) error {
		for {
			if err := send(json.RawMessage(`"` + strings.Repeat("x", 10_000) + `"`)); err != nil {
				freed <- err
				return err
			}
		}
	})), Options{StallAfter: 50 * time.Millisecond})
	stream, err := wire.NewObserveClient(conn).Ask(t.Context(), &wire.AskRequest{Query: []byte(`{"status":{}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if <-freed == nil {
		t.Error("it was sent")
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "not read") {
		t.Error(err)
	}
}

func TestAnswerGrowsOld(t *testing.T) {
	t.Parallel()
	conn := serve(t, Local(answerer(func(ctx context.Context, _ observe.Query, _ func(json.RawMessage) error) error {
		<-ctx.Done()
		return ctx.Err()
	})), Options{MaxAge: 20 * time.Millisecond})
	if err := NewAsker(conn, nil).Ask(t.Context(), question, nil); err == nil || !strings.Contains(err.Error(), "ask again") {
		t.Error(err)
	}
}

// What nodes say is theirs alone: what is wrong with one's answer costs another one
// nothing, and nothing that is no JSON is passed on.
func TestHostileNodes(t *testing.T) {
	t.Parallel()
	replies := []*wire.AskReply{
		{Node: "good", Data: []byte(`{"a":`)},
		{Node: "half", Data: []byte(`{"a":`)},
		{Node: "bad", Data: []byte("\x1b[2J"), Last: true},
		{Node: "bad", Data: []byte(`{"later":1}`), Last: true},
		{Node: "good", Data: []byte(`1}`), Last: true},
		{Node: "empty", Last: true},
		{Node: "stops", Data: []byte(`{`)},
		{Node: "stops", End: true},
		{Node: "good", End: true},
		{Node: "\x1b]0;x\a", End: true, Error: "\x1b[31m"},
	}
	conn := serve(t, func(_ context.Context, _ *wire.AskRequest, send func(*wire.AskReply) error) error {
		for _, r := range replies {
			if err := send(r); err != nil {
				return err
			}
		}
		return nil
	}, Options{})
	var got []string
	err := NewAsker(conn, nil).Ask(t.Context(), question, func(node string, piece json.RawMessage) error {
		got = append(got, node+string(piece))
		return nil
	})
	if fmt.Sprint(got) != `[good{"a":1}]` {
		t.Errorf("got %q", got)
	}
	failed, is := errors.AsType[*observe.NodesError](err)
	if !is {
		t.Fatal(err)
	}
	want := map[string]string{
		"half": "the answer ends in the middle", "stops": "the answer ends in the middle", "bad": "a piece of the answer is no JSON",
		"empty": "a piece of the answer is no JSON", "\x1b]0;x\a": "\x1b[31m",
	}
	if fmt.Sprint(failed.Reasons) != fmt.Sprint(want) {
		t.Errorf("got %q", failed.Reasons)
	}
}

func TestPieceTooLarge(t *testing.T) {
	t.Parallel()
	a := &answers{pieces: map[source][]byte{}, failed: map[source]string{}}
	part := make([]byte, 1<<20)
	for range maxPiece>>20 + 2 {
		if piece, err := a.add(&wire.AskReply{Node: "n", Data: part}); piece != nil || err != nil {
			t.Fatal(err)
		}
	}
	if a.failed[source{node: "n"}] == "" || a.partial != 0 || len(a.pieces) != 0 {
		t.Errorf("%v, %d bytes left", a.failed, a.partial)
	}
	var err error
	for i := 0; err == nil; i++ {
		_, err = a.add(&wire.AskReply{Node: fmt.Sprint(i % 100), Data: part})
		if i > maxPartial>>20 {
			t.Fatal("pieces of many nodes may grow without limit")
		}
	}
}

// listen makes a socket that answers, until the test ends.
func listen(t *testing.T, path string) {
	t.Helper()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, NewServer(Local(answerer(func(_ context.Context, _ observe.Query, send func(json.RawMessage) error) error {
			return send(json.RawMessage(`"yes"`))
		})), Options{}), s)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
}

// ask asks at a socket.
func ask(t *testing.T, path string) {
	t.Helper()
	conn, err := NewSocketClient(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	if err := NewAsker(conn, nil).Ask(t.Context(), question, func(_ string, piece json.RawMessage) error {
		n++
		if string(piece) != `"yes"` {
			t.Errorf("got %s", piece)
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d pieces, %v", n, err)
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"short": filepath.Join(t.TempDir(), "blixt.sock"),
		"long":  filepath.Join(t.TempDir(), strings.Repeat("d", 200), "blixt.sock"),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			listen(t, path)
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			ask(t, path)
			if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
				t.Errorf("a second one: %v", err)
			}
			ask(t, path)
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// A socket takes the place of one that a killed process has left, and of nothing else.
func TestSocketPlaceIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := DialSocket(t.Context(), stale); err == nil {
		t.Error("a stale socket answers")
	}
	listen(t, stale)
	ask(t, stale)

	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	link, dangling, folder := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "folder")
	if err := errors.Join(os.Symlink(precious, link), os.Symlink(filepath.Join(dir, "nowhere"), dangling), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{precious, link, dangling, folder} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if text, err := os.ReadFile(link); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}

// A process that ends leaves the socket of the one that has taken its place.
func TestSocketOfSuccessorStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // somebody cleans up
		t.Fatal(err)
	}
	listen(t, path)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	ask(t, path)
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	var s observe.Switch
	if err := s.Answer(t.Context(), question, nil); err == nil {
		t.Error("nobody answers")
	}
	s.Set(answerer(func(context.Context, observe.Query, func(json.RawMessage) error) error { return nil }))
	if err := s.Answer(t.Context(), question, nil); err != nil {
		t.Error(err)
	}
	s.Set(nil)
	if err := s.Answer(t.Context(), question, nil); err == nil {
		t.Error("nobody answers any more")
	}
}
