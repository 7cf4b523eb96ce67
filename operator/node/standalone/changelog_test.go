// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"bytes"
	"encoding/json"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// logged returns what a function logs, as text or as JSON.
func logged(t *testing.T, asJSON bool, f func()) []string {
	t.Helper()
	var text bytes.Buffer
	before, flags := slog.Default(), log.Flags()
	defer func() { slog.SetDefault(before); log.SetOutput(t.Output()); log.SetFlags(flags) }()
	if asJSON {
		slog.SetDefault(slog.New(slog.NewJSONHandler(&text, nil)))
	} else {
		slog.SetDefault(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
	}
	f()
	return slices.Collect(strings.Lines(text.String()))
}

// stateAt returns a state with frontends at ports, each with these backends.
func stateAt(ports int, backends ...string) *lb.State {
	ip := netip.MustParseAddr("192.0.2.10")
	s := &lb.State{Addresses: []lb.Address{{IP: ip}}}
	for port := range ports {
		f := lb.Frontend{Addr: ip, Protocol: lb.TCP, Port: uint16(80 + port), Gateway: "default/web"}
		for _, b := range backends {
			f.Backends = append(f.Backends, lb.Backend{Addr: netip.MustParseAddrPort(b), Weight: lb.WeightUnit / uint64(len(backends)), Service: "default/web"})
		}
		s.Frontends = append(s.Frontends, f)
	}
	return s
}

func TestLogTellsWhatChanged(t *testing.T) {
	var l changeLog
	wants := func(when string, f func(), want ...string) {
		t.Helper()
		if got := logged(t, false, f); !slices.Equal(got, want) {
			t.Errorf("%s: got %q\nwant %q", when, got, want)
		}
	}
	one := stateAt(1, "10.0.0.1:8080", "10.0.0.2:8080")
	wants("at first", func() { l.changed(one) }, "level=INFO msg=\"serving 192.0.2.10:80/tcp of default/web: 2 backends\"\n")
	wants("the same", func() { l.changed(stateAt(1, "10.0.0.1:8080", "10.0.0.2:8080")) })
	wants("nobody is reset", func() { l.swept(0) })
	wants("another one", func() { l.changed(stateAt(1, "10.0.0.1:8080", "10.0.0.3:8080")) },
		"level=INFO msg=\"changed: +10.0.0.3:8080 -10.0.0.2:8080 of default/web at 192.0.2.10:80/tcp\"\n")
	wants("five are reset", func() { l.swept(5) }, "level=INFO msg=\"5 flows reset, as their backend is gone: 10.0.0.2:8080 of default/web\"\n")
	wants("and later one", func() { l.swept(1) }, "level=INFO msg=\"1 flow reset, as their backend is gone\"\n")
	for _, line := range logged(t, true, func() { l.changed(one); l.swept(2) }) {
		var fields struct {
			Msg, Service   string
			Added, Removed []string
			Backends       []string
			Flows          int
		}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		change := fields.Service == "default/web" && slices.Equal(fields.Added, []string{"10.0.0.2:8080"}) && slices.Equal(fields.Removed, []string{"10.0.0.3:8080"})
		if !change && !(fields.Flows == 2 && slices.Equal(fields.Backends, []string{"10.0.0.3:8080 of default/web"})) {
			t.Errorf("JSON: %s", line)
		}
	}
}

func TestLogOfMuchIsShort(t *testing.T) {
	var l changeLog
	lines := logged(t, false, func() { l.changed(stateAt(4000, "10.0.0.1:8080")) })
	if len(lines) != 1 || !strings.Contains(lines[0], "serving 4,000 frontends at 192.0.2.10 (4,000 frontends)") {
		t.Errorf("%q", lines)
	}
	next := stateAt(4000, "10.0.0.1:8080")
	for i := range next.Frontends {
		next.Frontends[i].Backends[0].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 200), byte(i % 200)}), 80)
	}
	lines = logged(t, false, func() { l.changed(next) })
	if len(lines) != mostLines {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	l.swept(1)
}
