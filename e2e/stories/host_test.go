// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestHostStories runs the scripts of testdata/host: blixt's commands on a host between a
// client and servers, as people type them.
func TestHostStories(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip(lab.ErrNotRoot)
	}
	binary, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/host",
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLES", examples)
			h, err := newHost(env, binary)
			env.Values["host"] = h
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"alive":  command("host", checkAlive),
			"ask":    command("host", ask),
			"blixt":  runBlixt,
			"curl":   runCurl,
			"hold":   command("host", hold),
			"logged": logged,
			"run":    command("host", runHost),
			"shares": command("host", checkShares),
			"end":    command("host", endHost),

			"burst":       command("host", burst),
			"eventually":  command("host", eventually),
			"from":        command("host", from),
			"refused":     command("host", refused),
			"settled":     command("host", settled),
			"serve":       command("host", serve),
			"stop-server": command("host", stop),
			"web":         command("host", web),
		},
		UpdateScripts:      golden.Update(),
		RequireUniqueNames: true,
	})
}

// host is one with a load balancer.
type host struct {
	*lab.Standard
	blixt *lab.Blixt
	// held are connections of the client, by their names.
	held map[string]net.Conn
	// source is the client's address with port 0; "": any. sources are those that it has got.
	source  string
	sources map[string]bool
	// servers are what answers, by name and port.
	servers map[string][]*lab.Server
}

// newHost makes a network with two servers, which answer at ports 53, 80 and 8080.
func newHost(env *testscript.Env, binary string) (*host, error) {
	name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
	s, err := lab.NewStandard("blixt-story-"+name, 2, 0)
	if err != nil {
		return nil, err
	}
	env.Defer(func() {
		if err := s.Close(); err != nil {
			env.T().Log(err)
			env.T().FailNow()
		}
	})
	h := &host{Standard: s, held: map[string]net.Conn{}, sources: map[string]bool{}, servers: map[string][]*lab.Server{}}
	for _, n := range s.Backends {
		for _, port := range []int{53, 80, 8080} {
			if err := h.serve(n.Name, port); err != nil {
				return nil, err
			}
		}
	}
	b, err := s.Blixt(s.Balancer, binary, nil)
	if err != nil {
		return nil, err
	}
	b.Dir = ""
	h.blixt = b
	return h, nil
}

// runBlixt runs blixt ARGS... on the host, in the directory of the script, until it ends.
func runBlixt(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value("host").(*host)
	runIn(ts, h.Balancer, neg, h.blixt.Binary, args...)
}

// runCurl runs curl ARGS... on the host, or for the client: curl host|client ARGS...
func runCurl(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value("host").(*host)
	on := map[string]*lab.Node{"host": h.Balancer, "client": h.Client}[args[0]]
	if on == nil {
		ts.Fatalf("curl %s: want host or client", args[0])
	}
	runIn(ts, on, neg, "curl", append([]string{"--silent", "--show-error", "--noproxy", "*", "--max-time", "10"}, args[1:]...)...)
}

// runIn runs a program on a node, in the directory of the script, until it ends.
func runIn(ts *testscript.TestScript, on *lab.Node, neg bool, name string, args ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := on.Command(ctx, name, args...)
	cmd.Dir = ts.MkAbs(".")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := on.Do(cmd.Run)
	fmt.Fprint(ts.Stdout(), stdout.String())
	fmt.Fprint(ts.Stderr(), stderr.String())
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		ts.Fatalf("%v", err)
	}
	if failed := err != nil; failed != neg {
		ts.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
}

// runHost starts blixt run ARGS... and returns when it serves. Where an address of the lab
// is meant, scripts write its value.
func runHost(_ *testscript.TestScript, h *host, args []string) error {
	h.blixt.Args = slices.Concat([]string{"--flows", "65536"}, args)
	return h.blixt.Start()
}

// endHost ends blixt run.
func endHost(_ *testscript.TestScript, h *host, _ []string) error { return h.blixt.Stop() }

// logged PATTERN waits until blixt run has said it. With ! before it, it must not say so within a second.
func logged(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile("(?m)" + strings.Join(args, " "))
	ts.Check(err)
	blixt, limit := ts.Value("host").(*host).blixt, time.Minute
	if neg {
		limit = time.Second
	}
	said := lab.Eventually(limit, func() error {
		if !pattern.MatchString(blixt.Log()) {
			return errors.New("not yet")
		}
		return nil
	}) == nil
	if said == neg {
		ts.Fatalf("said: %t, want %t:\n%s", said, !neg, blixt.Log())
	}
}

// connect has the client connect so many times, and counts the answers by server.
func (h *host) connect(network, addr string, times int) (map[string]int, error) {
	answers := map[string]int{}
	for range times {
		c, err := h.Client.Dial(network, h.source, addr, 2*time.Second)
		if err != nil {
			return answers, err
		}
		server, err := exchange(c)
		_ = c.Close()
		if err != nil {
			return answers, err
		}
		answers[server]++
	}
	return answers, nil
}

// exchange sends a line, and returns the name of the server that answers.
func exchange(c net.Conn) (string, error) { return exchangeWithin(c, 2*time.Second) }

func exchangeWithin(c net.Conn, limit time.Duration) (string, error) {
	answer := make([]byte, 200)
	err := c.SetDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = c.Write([]byte("hello\n"))
	}
	if err == nil {
		_, err = c.Read(answer)
	}
	server, _, _ := strings.Cut(string(answer), " ")
	return server, err
}

// hold NAME ADDRESS:PORT opens a connection, and prints who answers.
func hold(ts *testscript.TestScript, h *host, args []string) error {
	c, err := h.Client.Dial("tcp", "", args[1], 2*time.Second)
	if err != nil {
		return err
	}
	ts.Defer(func() { _ = c.Close() })
	h.held[args[0]] = c
	server, err := exchange(c)
	fmt.Fprintln(ts.Stdout(), server)
	return err
}

// alive NAME fails if nobody answers on the connection any more.
func checkAlive(ts *testscript.TestScript, h *host, args []string) error {
	server, err := exchange(h.held[args[0]])
	fmt.Fprintln(ts.Stdout(), server)
	return err
}

// ask tcp|udp ADDRESS:PORT has the client connect, and prints who answers.
func ask(ts *testscript.TestScript, h *host, args []string) error {
	answers, err := h.connect(args[0], args[1], 40)
	fmt.Fprintln(ts.Stdout(), names(answers))
	return err
}

func names(answers map[string]int) string {
	return strings.Join(slices.Sorted(maps.Keys(answers)), " ")
}

// checkShares tcp|udp ADDRESS:PORT SERVER=N... fails unless servers answer in this
// proportion.
func checkShares(_ *testscript.TestScript, h *host, args []string) error {
	const times = 400
	answers, err := h.connect(args[0], args[1], times)
	if err != nil {
		return err
	}
	want, sum := map[string]int{}, 0
	for _, arg := range args[2:] {
		server, n, _ := strings.Cut(arg, "=")
		if want[server], err = strconv.Atoi(n); err != nil {
			return err
		}
		sum += want[server]
	}
	for server, n := range want {
		// Six standard deviations of a fair choice are 60 of 400.
		if expected := times * n / sum; max(answers[server]-expected, expected-answers[server]) > 60 {
			return fmt.Errorf("%d of %d connections went to %s, want about %d", answers[server], times, server, expected)
		}
	}
	return nil
}
