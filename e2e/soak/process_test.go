// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// processMistakes are those with the process. It has --keep: so no end of it is meant
// to stop the service.
var processMistakes = []mistake{
	{name: "killed", place: "process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "kill -9", h.blixt.Start, h.blixt.Kill()
	}},
	{name: "killed at its start", place: "process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		err := h.blixt.Kill()
		after := time.Duration(r.IntN(200)) * time.Millisecond
		if err == nil {
			err = h.blixt.Begin()
		}
		time.Sleep(after)
		return after.String() + " after it", h.blixt.Start, errors.Join(err, h.blixt.Kill())
	}},
	{name: "restarted", place: "process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "TERM, started at once", func() error { return nil }, errors.Join(h.blixt.Stop(), h.blixt.Start())
	}},
	{name: "ended", place: "process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "TERM", h.blixt.Start, h.blixt.Stop()
	}},
	{name: "other signals", place: "process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		signal := pick(r, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGPIPE, syscall.SIGINT, syscall.SIGQUIT)
		return signal.String(), func() error {
			if !h.blixt.Ended() {
				return nil
			}
			_ = h.blixt.Kill() // it has ended
			return h.blixt.Start()
		}, h.blixt.Signal(signal)
	}},
	{name: "stopped", place: "process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "SIGSTOP", func() error { return h.blixt.Signal(syscall.SIGCONT) }, h.blixt.Signal(syscall.SIGSTOP)
	}},
	{name: "few descriptors", place: "process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		limit := func(n int) error { return h.shell(fmt.Sprintf("prlimit --pid %d --nofile=%d:", h.blixt.Pid(), n)) }
		n := r.IntN(40)
		return fmt.Sprintf("%d", n), func() error { return limit(1024) }, limit(n)
	}},
	{name: "other boot clock", place: "process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		offset := pick(r, 3600, 86400, 10_000_000)
		if err := h.blixt.Kill(); err != nil {
			return "", nil, err
		}
		h.blixt.Via = []string{"unshare", "--time", "--boottime", fmt.Sprint(offset), "--monotonic", fmt.Sprint(offset)}
		err := h.blixt.Start()
		h.blixt.Via = nil
		return fmt.Sprintf("%d s ahead", offset), func() error { return errors.Join(h.blixt.Stop(), h.blixt.Start()) }, err
	}},
	{name: "same name", place: "second process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		out, err := h.second("--name", h.blixt.Name)
		if err == nil || !strings.Contains(err.Error(), "choose another") {
			// The first one may be away by another mistake.
			if h.blixt.Ended() {
				return "while there is none", func() error { return nil }, nil
			}
			return "started", nil, fmt.Errorf("a second instance of the same name says: %s (%w)", out, err)
		}
		return "started", func() error { return nil }, nil
	}},
	{name: "second instance", place: "second process", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		const name = "soak-second"
		args := []string{"run", "--filename", h.blixt.Dir, "--node-name", "balancer", "--state-dir", "", "--name", name}
		stop, err := h.balancer.Daemon(h.blixt.Binary, args...)
		if err != nil {
			return "started", nil, err
		}
		time.Sleep(time.Second)
		return "with the same files", func() error { return errors.Join(stop(), os.RemoveAll(lab.Pins(name))) }, nil
	}},
	{name: "wrong arguments", place: "second process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		args := pick(r, []string{"--snat-ports", "40000-41000"}, []string{"--interface", "eth9"}, []string{"--filename", "/nonexistent"}, []string{"--flows", "4294967295"})
		if _, err := h.second(append(args, "--name", "soak-wrong")...); err == nil {
			return fmt.Sprint(args), nil, errors.New("it ends well")
		}
		return fmt.Sprint(args), func() error { return nil }, os.RemoveAll(lab.Pins("soak-wrong"))
	}},
	{name: "pins removed", place: "process", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		what := pick(r, lab.Pins(h.blixt.Name), filepath.Join(lab.Pins(h.blixt.Name), "links"))
		return "rm -rf " + what, func() error { return nil }, os.RemoveAll(what)
	}},
	{name: "run directory", place: "run directory", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		files, err := filepath.Glob(filepath.Join(loader.DefaultRunDir, h.blixt.Name+".*"))
		files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".lock") })
		if len(files) == 0 {
			return "empty", func() error { return nil }, err
		}
		file := pick(r, files...)
		// Its process writes it again with the next state.
		return "without " + filepath.Base(file), func() error { return errors.Join(h.blixt.Kill(), h.blixt.Start()) }, os.Remove(file)
	}},
}

// second runs another instance that is expected to end at once.
func (h *host) second(args ...string) (string, error) {
	all := append([]string{"10", h.blixt.Binary, "run", "--filename", h.blixt.Dir, "--node-name", "balancer", "--state-dir", "", "--keep"}, args...)
	return h.balancer.Run(20*time.Second, "timeout", all...)
}
