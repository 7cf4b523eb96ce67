// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func endpoint(text string) Endpoint {
	ap := netip.MustParseAddrPort(text)
	return Endpoint{ap.Addr(), ap.Port()}
}

func at(text string) time.Time {
	t, err := time.Parse(time.TimeOnly, text)
	if err != nil {
		panic(err)
	}
	return t.AddDate(2026, 10, 27)
}

func record() *Record {
	snat, backend := endpoint("10.0.0.5:14211"), endpoint("10.1.3.9:8443")
	return &Record{
		V: RecordVersion, Event: EventEnd, Node: "n2", Seq: 7, Time: at("09:12:03"), Protocol: "tcp", Reason: "fin", EndedBy: "client",
		Client: endpoint("198.51.100.7:40000"), Server: endpoint("192.0.2.10:443"), SNAT: &snat, Backend: &backend,
		Gateway: "prod/edge", Listener: "tls", Route: "TCPRoute/prod/web", Service: "prod/web",
		Start: at("09:11:58"), Connect: 0.0009, RTT: 0.0213, Duration: 5,
		In: &Traffic{14, 1830}, Out: &Traffic{19, 22110},
	}
}

func match(texts ...string) (all []Match) {
	for _, text := range texts {
		m, err := ParseMatch(text)
		if err != nil {
			panic(err)
		}
		all = append(all, m)
	}
	return all
}

func TestFilterSelects(t *testing.T) {
	for name, f := range map[string]Filter{
		"nothing set":            {},
		"its last moment":        {Since: at("09:12:03"), Until: at("09:12:59")},
		"its first moment":       {Since: at("09:00:00"), Until: at("09:11:58")},
		"amid":                   {Since: at("09:12:00"), Until: at("09:12:00")},
		"SNAT source":            {SNATs: match("10.0.0.5:14211")},
		"one of two":             {SNATs: match("10.0.0.6", "10.0.0.0/24")},
		"port of any end":        {Ends: match(":8443")},
		"prefix of any end":      {Ends: match("10.1.0.0/16")},
		"mapped client":          {Clients: match("::ffff:198.51.100.7")},
		"server and protocol":    {Servers: match("192.0.2.10:443"), Protocols: []string{"udp", "tcp"}},
		"reason that begins so":  {Reasons: []string{"f*"}},
		"Gateway by its name":    {Gateways: []string{"edge"}},
		"route by name":          {Routes: []string{"web"}},
		"route of its namespace": {Routes: []string{"prod/web"}},
		"route in full":          {Routes: []string{"TCPRoute/prod/web"}},
		"Service":                {Services: []string{"prod/web"}},
		"event":                  {Events: []Event{EventOpen, EventEnd}},
	} {
		if !f.Has(record()) {
			t.Errorf("%s: the record is not selected", name)
		}
	}
	for name, f := range map[string]Filter{
		"later":                   {Since: at("09:12:04")},
		"earlier":                 {Until: at("09:11:57")},
		"SNAT, other port":        {SNATs: match("10.0.0.5:14212")},
		"client is no SNAT":       {SNATs: match("198.51.100.7")},
		"other client":            {Clients: match("198.51.100.8", "10.0.0.0/8")},
		"other backend":           {Backends: match(":443")},
		"no end":                  {Ends: match("[2001:db8::1]:443")},
		"protocol":                {Protocols: []string{"udp"}},
		"reason":                  {Reasons: []string{"fi", "reset*"}},
		"part of a name":          {Routes: []string{"eb"}},
		"empty name":              {Gateways: []string{""}},
		"event":                   {Events: []Event{EventDropped}},
		"one of two members only": {Gateways: []string{"edge"}, Routes: []string{"other"}},
	} {
		if f.Has(record()) {
			t.Errorf("%s: the record is selected", name)
		}
	}
}

// TestFilterSelectsWhatMayHaveBeenThere: of an open flow without a record nobody knows
// when it began, and a packet that was dropped has no backend.
func TestFilterSelectsWhatMayHaveBeenThere(t *testing.T) {
	open := record()
	open.Event, open.Start = EventOpen, time.Time{}
	if f := (Filter{Since: at("09:00:00"), Until: at("09:01:00")}); !f.Has(open) {
		t.Error("an open flow whose start is not known is not selected")
	}
	local := record()
	local.SNAT = nil
	if f := (Filter{SNATs: match("198.51.100.7:40000")}); !f.Has(local) {
		t.Error("the source that the backend sees is the client's own, and is not found")
	}
	dropped := record()
	dropped.Event, dropped.SNAT, dropped.Backend, dropped.Start = EventDropped, nil, nil, time.Time{}
	if f := (Filter{SNATs: match("198.51.100.7")}); f.Has(dropped) {
		t.Error("a packet that was dropped has reached no backend")
	}
	if f := (Filter{Until: at("09:12:00")}); f.Has(dropped) {
		t.Error("a packet counts before it came")
	}
}

func TestFilterTravels(t *testing.T) {
	f := Filter{Since: at("09:12:00"), SNATs: match("10.0.0.5:14211", "10.0.0.0/8", ":53", "[2001:db8::1]:80", "2001:db8::2"), Routes: []string{"web"}}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"since":"2026-11-28T09:12:00Z","snats":["10.0.0.5:14211","10.0.0.0/8",":53","[2001:db8::1]:80","2001:db8::2"],"routes":["web"]}`
	if string(text) != want {
		t.Errorf("filter in JSON:\n%s, want\n%s", text, want)
	}
	var back Filter
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(back); string(again) != want {
		t.Errorf("the filter comes back as %s", again)
	}
	for _, bad := range []string{"", "web", ":0", ":65536", "10.0.0.5:x", "10.0.0.0/33", "10.0.0.5:99999"} {
		if _, err := ParseMatch(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestRecordTravels(t *testing.T) {
	text, err := json.Marshal(FlowsPiece{Record: record()})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"v":1,"event":"end","node":"n2","seq":7,"time":"2026-11-28T09:12:03Z","protocol":"tcp","reason":"fin","endedBy":"client",` +
		`"client":{"address":"198.51.100.7","port":40000},"server":{"address":"192.0.2.10","port":443},"snat":{"address":"10.0.0.5","port":14211},` +
		`"backend":{"address":"10.1.3.9","port":8443},"gateway":"prod/edge","listener":"tls","route":"TCPRoute/prod/web","service":"prod/web",` +
		`"start":"2026-11-28T09:11:58Z","connect":0.0009,"rtt":0.0213,"duration":5,"in":{"packets":14,"bytes":1830},"out":{"packets":19,"bytes":22110}}`
	if string(text) != want {
		t.Errorf("record in JSON:\n%s, want\n%s", text, want)
	}
	var p FlowsPiece
	if err := json.Unmarshal([]byte(`{"memory":{"recording":"off","began":"2026-11-28T09:00:00Z","later":1}}`), &p); err != nil || p.Record != nil || p.Memory == nil || p.Memory.Recording != RecordingOff {
		t.Errorf("a piece with a memory is read as %+v, %v", p, err)
	}
}

func TestRecordAsText(t *testing.T) {
	const line = "2026-11-28 09:12:03.000 n2 fin by client tcp 198.51.100.7:40000 -> 192.0.2.10:443 -> 10.0.0.5:14211 -> 10.1.3.9:8443 " +
		"for 5s connect 900µs rtt 21.3ms in 14/1.8kB out 19/22.1kB prod/edge tls TCPRoute/prod/web prod/web"
	if got := record().Text(time.UTC); got != line {
		t.Errorf("line:\n%s, want\n%s", got, line)
	}
	open := record()
	open.Event, open.Reason, open.EndedBy, open.SNAT = EventOpen, "", "", nil
	const openLine = "2026-11-28 09:12:03.000 n2 open tcp 198.51.100.7:40000 -> 192.0.2.10:443 -> 10.1.3.9:8443 " +
		"since 2026-11-28 09:11:58.000 connect 900µs rtt 21.3ms in 14/1.8kB out 19/22.1kB prod/edge tls TCPRoute/prod/web prod/web"
	if got := open.Text(time.UTC); got != openLine {
		t.Errorf("line:\n%s, want\n%s", got, openLine)
	}
	// Names come from other nodes, and an interface's may hold anything but a slash or space.
	dropped := &Record{Event: EventDropped, Time: at("09:12:03"), Reason: "drop_no_route", Protocol: "icmp", Client: Endpoint{Address: netip.MustParseAddr("2001:db8::1")}, Sampled: 12, Interface: "a\x1b[2J\nb"}
	const droppedLine = `2026-11-28 09:12:03.000 drop_no_route icmp 2001:db8::1 -> - for 12 packets by a\u001b[2J\nb`
	if got := dropped.Text(time.UTC); got != droppedLine {
		t.Errorf("line:\n%s, want\n%s", got, droppedLine)
	}
}

func TestMemoryAsText(t *testing.T) {
	m := Memory{
		Recording: RecordingSome, Began: at("08:00:00"), Flows: Remembered{65536, at("09:00:00")}, Attempts: Remembered{Records: 3},
		Lost: map[string]uint64{"ring": 1200}, LeftOut: 5, Missed: 2,
	}
	const want = "remembers since 2026-11-28 08:00:00: flows 65,536 (since 2026-11-28 09:00:00), attempts 3, packets 0; flows of some Gateways are not recorded; " +
		"1,200 records lost (ring); 5 older ones are left out here, --last 0 shows all; 2 were not sent here, as this reads too slowly"
	if got := m.Text(time.UTC); got != want {
		t.Errorf("memory:\n%s, want\n%s", got, want)
	}
}

func TestAnswersToWhatIsNotKnown(t *testing.T) {
	var q Query
	if err := json.Unmarshal([]byte(`{"weather":{}}`), &q); err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{q, {Drops: &DropsQuery{}}} {
		err := Local{Answerer: Answers{}}.Ask(context.Background(), q, func(string, json.RawMessage) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "earlier version") {
			t.Errorf("an unknown question is answered with %v", err)
		}
	}
}

// The alerts about packets agree with what is said of each reason: what a node does wrong
// is bad, and what clients alone can cause is not.
func TestAlertsAgreeWithReasons(t *testing.T) {
	text, err := os.ReadFile("../../charts/blixt/files/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?s)- alert: (BlixtDropping|BlixtUnwantedPackets)\n.*?reason=~"(.*?)"`).FindAllStringSubmatch(string(text), -1)
	if len(named) != 2 {
		t.Fatalf("found %d alerts", len(named))
	}
	for _, alert := range named {
		reasons := regexp.MustCompile("^(" + alert[2] + ")$")
		for _, r := range Reasons {
			if bad := strings.HasPrefix(r.Bad, "Yes"); reasons.MatchString(r.Name) && bad != (alert[1] == "BlixtDropping") {
				t.Errorf("%s has %s, and is said to be: %s", alert[1], r.Name, r.Bad)
			}
		}
	}
}
