// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Text returns a record as one line for people, with times in a place.
func (r *Record) Text(place *time.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", r.Time.In(place).Format("2006-01-02 15:04:05.000"))
	if r.Node != "" {
		b.WriteString(phrase.Printable(r.Node) + " ")
	}
	fmt.Fprintf(&b, "%s %s", r.what(), r.Protocol)
	fmt.Fprintf(&b, " %s -> %s", r.Client, r.Server)
	if r.Backend != nil {
		b.WriteString(" -> ")
		if r.SNAT != nil {
			fmt.Fprintf(&b, "%s -> ", *r.SNAT)
		}
		b.WriteString(r.Backend.String())
	}
	if r.Event == EventOpen && !r.Start.IsZero() {
		fmt.Fprintf(&b, " since %s", r.Start.In(place).Format("2006-01-02 15:04:05.000"))
	} else if r.Duration > 0 {
		fmt.Fprintf(&b, " for %s", seconds(r.Duration))
	}
	if r.Connect > 0 {
		fmt.Fprintf(&b, " connect %s", seconds(r.Connect))
	}
	if r.RTT > 0 {
		fmt.Fprintf(&b, " rtt %s", seconds(r.RTT))
	}
	if r.In != nil && r.Out != nil {
		fmt.Fprintf(&b, " in %s out %s", r.In, r.Out)
	}
	if r.Sampled > 1 {
		fmt.Fprintf(&b, " for %d packets", r.Sampled)
	}
	if r.Interface != "" {
		fmt.Fprintf(&b, " by %s", phrase.Printable(r.Interface))
	}
	for _, name := range []string{r.Gateway, r.Listener, r.Route, r.Service} {
		if name != "" {
			b.WriteString(" " + phrase.Printable(name))
		}
	}
	return b.String()
}

// what returns the event, why, and by whom.
func (r *Record) what() string {
	switch {
	case r.Event == EventRejected || r.Event == EventDropped:
		return phrase.Printable(r.Reason) // begins with the event
	case r.EndedBy != "":
		return phrase.Printable(r.Reason + " by " + r.EndedBy)
	case r.Reason != "":
		return phrase.Printable(r.Reason)
	}
	return phrase.Printable(string(r.Event))
}

// String returns address:port; without a port the address.
func (e Endpoint) String() string {
	if !e.Address.IsValid() {
		return "-"
	}
	if e.Port == 0 {
		return e.Address.String()
	}
	return netip.AddrPortFrom(e.Address, e.Port).String()
}

// String returns packets/bytes.
func (t *Traffic) String() string { return fmt.Sprintf("%d/%s", t.Packets, bytesText(t.Bytes)) }

func bytesText(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 999.95 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.1f%cB", v, units[i])
}

// seconds returns a duration with three digits.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	digit := time.Duration(1)
	for d/digit >= 1000 {
		digit *= 10
	}
	return d.Round(digit).String()
}

// Text returns what a memory holds as a line for people.
func (m *Memory) Text(place *time.Location) string {
	clock := func(t time.Time) string { return t.In(place).Format(time.DateTime) }
	part := func(name string, r Remembered) string {
		text := fmt.Sprintf("%s %s", name, phrase.Number(r.Records))
		if !r.Since.IsZero() {
			text += " (since " + clock(r.Since) + ")"
		}
		return text
	}
	text := fmt.Sprintf("remembers since %s: %s, %s, %s", clock(m.Began),
		part("flows", m.Flows), part("attempts", m.Attempts), part("packets", m.Packets))
	switch m.Recording {
	case RecordingOff:
		text += "; flows are not recorded, so that only open ones are known: spec.flowRecords of a BlixtGatewayConfig, or blixt run --flow-records, changes that"
	case RecordingSome:
		text += "; flows of some Gateways are not recorded"
	case RecordingNot:
		text += "; the program is of an earlier version, which records nothing"
	}
	for _, where := range []string{"ring", "full", "memory", "log"} {
		if n := m.Lost[where]; n > 0 {
			text += fmt.Sprintf("; %s records lost (%s)", phrase.Number(int(n)), where)
		}
	}
	if m.LeftOut > 0 {
		text += fmt.Sprintf("; %s older ones are left out here, --last 0 shows all", phrase.Number(m.LeftOut))
	}
	if m.Missed > 0 {
		text += fmt.Sprintf("; %s were not sent here, as this reads too slowly", phrase.Number(int(m.Missed)))
	}
	return text
}
