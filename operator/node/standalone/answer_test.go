// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// sayName answers its name to whatever it is asked.
type sayName string

func (s sayName) Answer(_ context.Context, _ observe.Query, send func(json.RawMessage) error) error {
	return send(json.RawMessage(`"` + string(s) + `"`))
}

func TestCommandsAskTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		r := &runner{Options: Options{RunDir: dir, Name: name}, answerer: sayName(name)}
		ctx, stop := context.WithCancel(t.Context())
		wait := r.answer(ctx)
		c, err := dial.Dial(ctx, dial.Target{Socket: SocketFile(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var got []string
		if err := c.Ask(ctx, observe.Query{Status: &observe.StatusQuery{}}, func(_ string, piece json.RawMessage) error {
			got = append(got, string(piece))
			return nil
		}); err != nil || strings.Join(got, " ") != `"`+name+`"` {
			t.Errorf("got %s, %v", got, err)
		}
		defer func() {
			stop()
			wait()
			if _, err := os.Lstat(SocketFile(dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
			if _, err := dial.Dial(t.Context(), dial.Target{Socket: SocketFile(dir, name)}); err == nil || !strings.Contains(err.Error(), "is it running") {
				t.Errorf("asked after its end: %v", err)
			}
		}()
	}
}

// A load balancer serves without its socket where something is in the way.
func TestNoPlaceForSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", SocketFile(dir, "a")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*runner{
		{Options: Options{RunDir: dir, Name: "a"}, answerer: sayName("a")},
		{Options: Options{RunDir: filepath.Join(dir, "missing"), Name: "b"}, answerer: sayName("b")},
		{Options: Options{RunDir: dir, Name: "c"}},
	} {
		r.answer(t.Context())()
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Type() != os.ModeSymlink {
		t.Errorf("%v, %v", left, err)
	}
}
