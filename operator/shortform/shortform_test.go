// SPDX-License-Identifier: Apache-2.0

package shortform_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/shortform"
)

// flags reads flags as they are written, each with its value.
func flags(args ...string) (all []shortform.Flag) {
	for i := 0; i < len(args); i += 2 {
		all = append(all, shortform.Flag{Name: strings.TrimPrefix(args[i], "--"), Value: args[i+1]})
	}
	return all
}

// text returns the documents as one file.
func text(documents []shortform.Document) string {
	all := []string{shortform.Class("blixt")}
	for _, d := range documents {
		all = append(all, d.Text)
	}
	return strings.Join(all, "---\n")
}

func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.flags")
	if err != nil || len(inputs) < 4 {
		t.Fatal(inputs, err)
	}
	for _, path := range inputs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			in, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			documents, err := shortform.Objects(flags(strings.Fields(string(in))...), "blixt")
			if err != nil {
				t.Fatal(err)
			}
			golden.File(t, strings.TrimSuffix(path, ".flags")+".yaml", []byte(text(documents)))
		})
	}
}

func TestNoFlagsAreNothing(t *testing.T) {
	if documents, err := shortform.Objects(nil, "blixt"); err != nil || documents != nil {
		t.Errorf("%v, %v", documents, err)
	}
}

// Each mistake is told with its flag, and with what to do.
func TestMistakes(t *testing.T) {
	const ok = "10.0.0.1:8080"
	listens := map[string]string{
		"":                                  "it is empty: write an address and a port, such as 192.0.2.10:80",
		" 192.0.2.1:80":                     "it has white space",
		"192.0.2.1:80 ":                     "it has white space",
		"192.0.2.1:\t80":                    "it has white space",
		"192.0.2.1:80\u00a0":                "it has white space",
		"http://192.0.2.1:80/":              "http://… is a URL, and Blixt balances TCP and UDP, whatever is in it: write 192.0.2.1:80",
		"tcp://192.0.2.1:80":                "write 192.0.2.1:80",
		"192.0.2.1":                         "a port is missing: write 192.0.2.1:80, or another port",
		"192.0.2.1:":                        "a port is missing: write 192.0.2.1:80, or another port",
		"[2001:db8::1]":                     "a port is missing: write [2001:db8::1]:80, or another port",
		"192.0.2.1/udp":                     "a port is missing",
		":":                                 `port "" is no number from 1 to 65535`,
		"0":                                 `port "0" is no number from 1 to 65535`,
		":0":                                `port "0" is no number`,
		"192.0.2.1:0/udp":                   `port "0" is no number`,
		"192.0.2.1:99999":                   `port "99999" is no number`,
		"192.0.2.1:65536":                   `port "65536" is no number`,
		"192.0.2.1:-80":                     `port "-80" is no number`,
		"192.0.2.1:+80":                     `port "+80" is no number`,
		"192.0.2.1:0x50":                    `port "0x50" is no number`,
		"192.0.2.1:80-90":                   `port "80-90" is no number`,
		"192.0.2.1:http":                    `port "http" is no number`,
		"192.0.2.1:18446744073709551696":    `port "18446744073709551696" is no number`,
		"192.0.2.1:80/":                     `protocol "" is not supported: write /tcp or /udp`,
		"192.0.2.1:80/sctp":                 `protocol "sctp" is not supported: write /tcp or /udp`,
		"192.0.2.1:80/tcp/udp":              `protocol "tcp/udp" is not supported`,
		"tcp/:80":                           `protocol ":80" is not supported`,
		"localhost:80":                      "localhost is no IP address: write one, as names are not looked up",
		"example.com:80":                    "example.com is no IP address: write one, as names are not looked up",
		"eth0:80":                           "eth0 is no IP address",
		"192.0.2.01:80":                     "192.0.2.01 is no IP address",
		"192.0.2:80":                        "192.0.2 is no IP address",
		"192.0.2.0/24:80":                   `protocol "24:80" is not supported`,
		"2001:db8::1:53":                    "write an IPv6 address in brackets, like [2001:db8::1]:80",
		"::1":                               "write an IPv6 address in brackets",
		"[2001:db8::1":                      "its brackets are wrong: write an IPv6 address like [2001:db8::1]:80",
		"[2001:db8::1]80":                   "its brackets are wrong",
		"[]:80":                             "its brackets are wrong",
		"[192.0.2.1]:80":                    "brackets are for IPv6: write 192.0.2.1:80",
		"[::ffff:192.0.2.1]:80":             "::ffff:192.0.2.1 is an IPv4 address written as IPv6: write 192.0.2.1",
		"[fe80::1%eth0]:80":                 "address fe80::1%eth0 cannot be used: it has a zone",
		"[fe80::1]:80":                      "address fe80::1 cannot be used: it is a link-local address",
		"0.0.0.0:80/udp":                    "write :80/udp for every address of this host",
		"[::]:80":                           "write :80/tcp for every address of this host",
		"*:80":                              "write :80/tcp for every address of this host",
		"127.0.0.1:80":                      "address 127.0.0.1 cannot be used: it is a loopback address, which never leaves its host",
		"224.0.0.1:80":                      "address 224.0.0.1 cannot be used: it is a multicast address",
		"255.255.255.255:80":                "it is the broadcast address",
		"192.0.2.1:80,":                     `option "" is unknown: a --listen can have name=NAME`,
		"192.0.2.1:80,weight=2":             `option "weight" is unknown: a --listen can have name=NAME`,
		"192.0.2.1:80,name=a,name=b":        "option name is given twice",
		"192.0.2.1:80,alow=10.0.0.0/8":      `option "alow" is unknown: a --listen can have name=NAME, allow=NETWORK, deny=NETWORK, max-new=N/s,`,
		"192.0.2.1:80,allow=":               "option allow: want a network, such as 192.0.2.0/24",
		"192.0.2.1:80,allow=10.0.0.1/8":     "option allow: 10.0.0.1/8 has bits behind the prefix: write 10.0.0.0/8",
		"192.0.2.1:80,deny=example.com":     "option deny: want a network, such as 192.0.2.0/24",
		"192.0.2.1:80,deny=a: {b: \"c\"}":   "it has white space",
		"192.0.2.1:80,deny=\"]":             "option deny: want a network",
		"192.0.2.1:80,deny=::ffff:10.0.0.1": "option deny: want a network",
		"192.0.2.1:80,allow=fe80::1%eth0":   "option allow: want a network",
		"192.0.2.1:80,max-new=0":            "option max-new: 0 is too small: at least 1",
		"192.0.2.1:80,max-new=1.5":          `max-new "1.5" is no whole number from 1 to 10000000`,
		"192.0.2.1:80,max-new=10/m":         `max-new "10/m" is no whole number`,
		"192.0.2.1:80,max-new=":             `max-new "" is no whole number`,
		"192.0.2.1:80,max-new=1,max-new=2":  "option max-new is given twice",
		"192.0.2.1:80,max-new-per-source=10000001":                     `max-new-per-source "10000001" is no whole number`,
		"192.0.2.1:80,max-connections=-1":                              `max-connections "-1" is no whole number`,
		"192.0.2.1:80,max-connections-per-source=00000000000000000001": "is no whole number",
		"192.0.2.1:80,affinity":                                        "option affinity has no value: write affinity=client|3h",
		"192.0.2.1:80,affinity=cookie":                                 "option affinity: want a duration of 10s to 24h, such as 3h",
		"192.0.2.1:80,idle-timeout=1s":                                 "option idle-timeout: want a duration of 10s to 168h, such as 2h15m",
		"192.0.2.1:80/udp,idle-timeout=0s":                             "option idle-timeout: want a duration of 1s to 24h, such as 5m",
		"192.0.2.1:80,max-age=1d":                                      "option max-age: want a duration of 1m to 8760h, such as 24h",
		"192.0.2.1:80,health=https:/":                                  `health "https:/" is unknown: write tcp, http:/healthz, udp:TEXT or passive`,
		"192.0.2.1:80,health=http:healthz":                             "option health: want a path that begins with / and has no spaces, such as /healthz",
		"192.0.2.1:80,health=tcp:80":                                   `health "tcp:80" is unknown`,
		"192.0.2.1:80,health=udp:" + strings.Repeat("a", 600):          "option health: 800 characters are too many: at most 684",
		"192.0.2.1:80,name":                                            `name "" is not allowed`,
		"192.0.2.1:80,name=Web":                                        `name "Web" is not allowed: write at most 50 lower-case letters, digits and dashes, first a letter, last no dash`,
		"192.0.2.1:80,name=web-":                                       `name "web-" is not allowed`,
		"192.0.2.1:80,name=1":                                          `name "1" is not allowed`,
		"192.0.2.1:80,name=a: {b: c}":                                  "it has white space",
		"192.0.2.1:80,name=a\nb":                                       "it has white space",
		"192.0.2.1:80,name=" + strings.Repeat("a", 51):                 "is not allowed",
		"192.0.2.1:80\x00":                                             `port "80\\u0000" is no number`,
		"\x1b[2J:80":                                                   `\u001b[2J is no IP address`,
		"\xff\xfe:80":                                                  "is no IP address",
		"192.0.2.1:80/\u202etcp":                                       `protocol "\\u202etcp" is not supported`,
		strings.Repeat("a", 1<<20):                                     "bytes left out",
	}
	for value, says := range listens {
		checkMistake(t, says, "--listen", value, flags("--listen", value, "--backend", ok))
	}
	backends := map[string]string{
		"":                           "it is empty",
		"web.example.com:8080":       "web.example.com is no IP address: write one, as names are not looked up",
		"web":                        "web is no IP address",
		"8080":                       "8080 is no IP address",
		":8080":                      "an address is missing: write 10.0.0.1:8080, or another server's",
		"10.0.0.1:":                  `port "" is no number`,
		"10.0.0.1:0":                 `port "0" is no number`,
		"10.0.0.1:99999":             `port "99999" is no number`,
		"10.0.0.1:8080/tcp":          "a backend is one address, with the protocol of its --listen: leave /tcp away",
		"10.0.0.0/24":                "a backend is one address, with the protocol of its --listen: leave /24 away",
		"http://10.0.0.1:8080/":      "http://… is a URL",
		"fd00::1":                    "write an IPv6 address in brackets",
		"fd00::1:8080":               "write an IPv6 address in brackets",
		"[::ffff:10.0.0.1]:80":       "::ffff:10.0.0.1 is an IPv4 address written as IPv6: write 10.0.0.1",
		"[fe80::1%eth0]:80":          "it has a zone",
		"127.0.0.1:8080":             "address 127.0.0.1 cannot be used: it is a loopback address, which never leaves its host",
		"[::1]:8080":                 "it is a loopback address, which never leaves its host: for a server on this host write the address of an interface, on which it must listen",
		"0.0.0.0:8080":               "it is the unspecified address",
		"239.1.2.3:8080":             "it is a multicast address",
		"10.0.0.1 :8080":             "it has white space",
		"10.0.0.1:80,10.0.0.2:80":    `option "10.0.0.2:80" is unknown: a --backend can have weight=N`,
		"10.0.0.1:80,weigth=2":       `option "weigth" is unknown: a --backend can have weight=N`,
		"10.0.0.1:80,weight":         `weight "" is no whole number from 0 to 1000000`,
		"10.0.0.1:80,weight=-1":      `weight "-1" is no whole number from 0 to 1000000`,
		"10.0.0.1:80,weight=1.5":     `weight "1.5" is no whole number`,
		"10.0.0.1:80,weight=1e3":     `weight "1e3" is no whole number`,
		"10.0.0.1:80,weight=1000001": `weight "1000001" is no whole number`,
		"10.0.0.1:80,weight=18446744073709551617": `weight "18446744073709551617" is no whole number`,
		"10.0.0.1:80,weight=1,weight=2":           "option weight is given twice",
		"[fd00::1]:8080":                          "none of its --listen flags is IPv6, so that no client would reach it",
	}
	for value, says := range backends {
		checkMistake(t, says, "--backend", value, flags("--listen", "192.0.2.1:80", "--backend", ok, "--backend", value))
	}
}

// checkMistake requires one line, of the flag, that is fit for a terminal.
func checkMistake(t *testing.T, says, name, value string, given []shortform.Flag) {
	t.Helper()
	documents, err := shortform.Objects(given, "blixt")
	if err == nil || documents != nil {
		t.Errorf("%s %q is allowed", name, value)
		return
	}
	line := err.Error()
	if !strings.Contains(line, says) || !strings.HasPrefix(line, name+" ") {
		t.Errorf("%s %q: %s\nwant %s", name, value, line, says)
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == '\u202e' }) || len(line) > 500 {
		t.Errorf("%s %q: %q is not fit for a terminal", name, value, line)
	}
}

// These are right one by one, and not together.
func TestMistakesOfSeveralFlags(t *testing.T) {
	const listen, backend = "--listen", "--backend"
	for says, given := range map[string][]string{
		"--backend 10.0.0.1: no --listen is before it: a --backend belongs to the --listen flags before it":                                 {backend, "10.0.0.1", listen, ":80", backend, "10.0.0.2"},
		"--listen :80: no --backend follows it: give at least one, such as --backend 10.0.0.1:8080":                                         {listen, ":80", listen, ":81"},
		"--listen :82: no --backend follows it":                                                                                             {listen, ":80", backend, "10.0.0.1", listen, ":82"},
		"--listen 80/tcp: it is given twice: --listen :80 means the same address, port and protocol":                                        {listen, ":80", backend, "10.0.0.1", listen, "80/tcp", backend, "10.0.0.2"},
		"--listen [2001:db8:0::1]:80: it is given twice: --listen [2001:DB8::1]:80":                                                         {listen, "[2001:DB8::1]:80", listen, "[2001:db8:0::1]:80", backend, "[fd00::1]"},
		"--listen :81,name=web: name web is that of --listen :80,name=web already: give another one":                                        {listen, ":80,name=web", listen, ":81,name=web", backend, "10.0.0.1"},
		"--listen :81,name=tcp-80: name tcp-80 is that of --listen :80 already":                                                             {listen, ":80", listen, ":81,name=tcp-80", backend, "10.0.0.1"},
		"--backend 10.0.0.1:80: it is given twice: --backend 10.0.0.1:80 is 10.0.0.1:80, too":                                               {listen, ":80", backend, "10.0.0.1:80", backend, "10.0.0.1:80"},
		"--backend 10.0.0.1:80,weight=2: it is given twice: --backend 10.0.0.1 is 10.0.0.1:80, too":                                         {listen, ":79", listen, ":80", backend, "10.0.0.1", backend, "10.0.0.1:80,weight=2"},
		"--listen [2001:db8::1]:80: none of its --backend flags is IPv6, and clients of an IPv6 address":                                    {listen, "192.0.2.1:80", listen, "[2001:db8::1]:80", backend, "10.0.0.1"},
		"--listen :80: its IPv4 backends have other weights than its IPv6 ones":                                                             {listen, ":80", backend, "10.0.0.1", backend, "10.0.0.2,weight=2", backend, "[fd00::1]"},
		"--listen :81,name=web-w2: its backends need the Service web-w2, which is that of --listen :80,name=web already: give another name": {listen, ":80,name=web", backend, "10.0.0.1,weight=2", backend, "10.0.0.2", listen, ":81,name=web-w2", backend, "10.0.0.1"},
		"--listen :80: its backends have 17 different weights, and a route has room for 16: use fewer":                                      append([]string{listen, ":80"}, many(17, func(i int) string { return fmt.Sprintf("10.0.0.%d,weight=%d", i+1, i+1) })...),
		"--listen :80: the backends of weight 1000000 have 2,000,000 together, and Gateway API allows 1,000,000: use smaller weights":       {listen, ":80", backend, "10.0.0.1,weight=1000000", backend, "10.0.0.2,weight=1000000", backend, "10.0.0.3,weight=999999"},
		"and 10 more": slices.Concat(many(20, func(int) string { return "x" })),
	} {
		documents, err := shortform.Objects(flags(given...), "blixt")
		if err == nil || documents != nil || !strings.Contains("\n"+err.Error(), "\n"+says) {
			t.Errorf("%.300s: %v\nwant %s", given, err, says)
		}
	}
}

// many returns --backend flags.
func many(n int, value func(i int) string) (all []string) {
	for i := range n {
		all = append(all, "--backend", value(i))
	}
	return all
}

// All mistakes are told at once, in the order of the flags.
func TestAllMistakesAreToldAtOnce(t *testing.T) {
	_, err := shortform.Objects(flags("--listen", "a:80", "--listen", ":0", "--backend", "b", "--listen", ":81"), "blixt")
	want := `--listen a:80: a is no IP address: write one, as names are not looked up
--listen :0: port "0" is no number from 1 to 65535
--backend b: b is no IP address: write one, as names are not looked up
--listen :81: no --backend follows it: give at least one, such as --backend 10.0.0.1:8080`
	if fmt.Sprint(err) != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// host are the addresses of the host that the tests imagine.
var host = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:100::1")}

// serve returns what is served of sets, and fails if anything is wrong with them.
func serve(t *testing.T, sets ...*manifest.Set) lb.State {
	t.Helper()
	all := manifest.Merge(sets)
	translation := gateway.Translate(all.Objects, gateway.Options{HostAddresses: host, DefaultAddresses: host})
	endpoints := gateway.IndexEndpoints(all.EndpointSlices, nil)
	r := gateway.Resolve(&translation.Unresolved, endpoints, gateway.ResolveOptions{HostAddresses: host})
	for _, m := range translation.Mistakes {
		t.Errorf("%s: %s", m.Object, m.Message)
	}
	for _, p := range append(r.Problems(), translation.Remarks(&all.Objects, all.EndpointSlices)...) {
		if !strings.Contains(p.Message, "weight 0") {
			t.Errorf("%s: %s", p.Object, p.Message)
		}
	}
	return r.State
}

// parse reads a text as a file.
func parse(t *testing.T, text string) *manifest.Set {
	t.Helper()
	set, errs := manifest.Parse("a.yaml", []byte(text))
	if errs != nil {
		t.Fatalf("%v in\n%s", errs, text)
	}
	return set
}

// What blixt run serves of flags is what it serves of the file that blixt init writes, and
// is what the flags say: each listener has its servers, with their weights.
func TestFlagsAndFileAreServedAlike(t *testing.T) {
	served := 0
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 20))
		given, want := randomFlags(random)
		documents, err := shortform.Objects(given, "blixt-listen")
		if err != nil {
			continue // such as the same thing twice
		}
		var sets []*manifest.Set
		for _, d := range documents {
			set, errs := manifest.ParsePlace(d.Place, []byte(shortform.Class("blixt-listen")+"---\n"+d.Text))
			if errs != nil {
				t.Fatalf("%v in\n%s", errs, d.Text)
			}
			sets = append(sets, set)
		}
		file, err := shortform.Objects(given, "blixt")
		if err != nil {
			t.Fatal(err)
		}
		state := serve(t, sets...)
		if b := serve(t, parse(t, text(file))); !reflect.DeepEqual(state, b) {
			t.Errorf("seed %d: the file is served as %v, the flags %v as %v", seed, b, given, state)
		}
		if got := weights(state); !slices.Equal(got, want) {
			t.Errorf("seed %d: %v\nis served as\n%s\nwant\n%s", seed, given, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if t.Failed() {
			return
		}
		served++
	}
	if served < 100 {
		t.Errorf("only %d of the random flags were right", served)
	}
}

// randomFlags returns flags, and what weights returns for them.
func randomFlags(random *rand.Rand) (all []shortform.Flag, want []string) {
	families := []struct{ listen, backend string }{{"192.0.2.%d", "10.0.0.%d"}, {"[2001:db8::%x]", "[fd00::%x]"}}
	add := func(name, value string) { all = append(all, shortform.Flag{Name: name, Value: value}) }
	for range 1 + random.IntN(3) {
		type server struct {
			addr   string
			port   int
			weight int
			family int
		}
		type client struct {
			addr, protocol string
			port, family   int
		}
		var servers []server
		var clients []client
		both := random.IntN(2) == 0
		for range 1 + random.IntN(3) {
			f := 0
			if both {
				f = random.IntN(2)
			}
			port, protocol := 1+random.IntN(65535), []string{"tcp", "udp"}[random.IntN(2)]
			if random.IntN(3) == 0 {
				add("listen", fmt.Sprintf(":%d/%s", port, protocol))
				for f, addr := range host {
					clients = append(clients, client{netip.AddrPortFrom(addr, uint16(port)).String(), protocol, port, f})
				}
				continue
			}
			at := fmt.Sprintf(families[f].listen+":%d", 1+random.IntN(200), port)
			add("listen", at+"/"+protocol)
			clients = append(clients, client{netip.MustParseAddrPort(at).String(), protocol, port, f})
		}
		for range 1 + random.IntN(6) {
			f := 0
			if both {
				f = random.IntN(2)
			}
			s := server{fmt.Sprintf(families[f].backend, 1+random.IntN(200)), random.IntN(2) * 8080, random.IntN(4), f}
			value := s.addr
			if s.port > 0 {
				value += fmt.Sprintf(":%d", s.port)
			}
			if s.weight != 1 || random.IntN(2) == 0 {
				value += fmt.Sprintf(",weight=%d", s.weight)
			}
			add("backend", value)
			servers = append(servers, s)
		}
		for _, c := range clients {
			line, sum, mine := "", 0, []string{}
			for _, s := range servers {
				if s.family == c.family {
					sum += s.weight
				}
			}
			for _, s := range servers {
				if s.family == c.family {
					at := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", s.addr, cmp.Or(s.port, c.port)))
					mine = append(mine, fmt.Sprintf(" %s %s", at, part(uint64(s.weight), uint64(sum))))
				}
			}
			slices.Sort(mine)
			line = c.addr + "/" + c.protocol + strings.Join(mine, "")
			want = append(want, line)
		}
	}
	slices.Sort(want)
	return all, want
}

// part returns a share of new connections.
func part(weight, sum uint64) string {
	if sum == 0 {
		return "0"
	}
	return fmt.Sprintf("%.4f", float64(weight)/float64(sum))
}

// weights returns a line for each frontend, with the share of each backend.
func weights(s lb.State) (all []string) {
	for _, f := range s.Frontends {
		sum := uint64(0)
		for _, b := range f.Backends {
			sum += b.Weight
		}
		var mine []string
		for _, b := range f.Backends {
			mine = append(mine, fmt.Sprintf(" %s %s", b.Addr, part(b.Weight, sum)))
		}
		slices.Sort(mine)
		all = append(all, fmt.Sprintf("%s/%s", netip.AddrPortFrom(f.Addr, f.Port), strings.ToLower(f.Protocol.String()))+strings.Join(mine, ""))
	}
	slices.Sort(all)
	return all
}

// Thousands of servers, which no single EndpointSlice could have, and as many listeners as
// no single Gateway.
func TestMany(t *testing.T) {
	args := []string{}
	for i := range 70 {
		args = append(args, "--listen", fmt.Sprintf("192.0.2.10:%d", 1000+i))
	}
	args = append(args, many(2500, func(i int) string { return fmt.Sprintf("10.0.%d.%d:8080,weight=1000000", i/250, i%250) })...)
	documents, err := shortform.Objects(flags(args...), "blixt")
	if err != nil {
		t.Fatal(err)
	}
	set := parse(t, text(documents))
	if n := len(set.EndpointSlices); n != 3 {
		t.Errorf("%d EndpointSlices", n)
	}
	state := serve(t, set)
	if len(state.Frontends) != 70 {
		t.Fatalf("%d frontends", len(state.Frontends))
	}
	for _, f := range state.Frontends {
		if len(f.Backends) != 2500 || f.Backends[0].Weight != f.Backends[2499].Weight || f.Backends[0].Weight == 0 {
			t.Fatalf("frontend %s has %d backends", f.Key(), len(f.Backends))
		}
	}
}

// A name is a string, also where YAML 1.1 reads the word otherwise.
func TestNamesThatYAMLReadsOtherwise(t *testing.T) {
	for _, name := range []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "e1", "x"} {
		documents, err := shortform.Objects(flags("--listen", "192.0.2.1:80,name="+name, "--backend", "10.0.0.1"), "blixt")
		if err != nil {
			t.Fatal(err)
		}
		state := serve(t, parse(t, text(documents)))
		if len(state.Frontends) != 1 || state.Frontends[0].Gateway != "default/"+name || len(state.Frontends[0].Backends) != 1 {
			t.Errorf("name=%s is served as %v", name, state)
		}
	}
}

// The longest names that are possible are valid everywhere.
func TestLongestNames(t *testing.T) {
	const addr = "[2001:1db8:1111:1111:1111:1111:1111:1111]"
	documents, err := shortform.Objects(flags("--listen", addr+":65535", "--listen", ":65535/udp,name="+strings.Repeat("a", 50),
		"--backend", addr[:5]+"::1]:65535,weight=999999", "--backend", "10.0.0.1,weight=999999", "--backend", "10.0.0.2,weight=1", "--backend", "[fd00::2],weight=1"), "blixt")
	if err != nil {
		t.Fatal(err)
	}
	set := parse(t, text(documents))
	for _, s := range set.Objects.Services {
		if len(s.Name) > 63 {
			t.Errorf("%s has %d characters", s.Name, len(s.Name))
		}
	}
}

// No flag gets anything into the objects but itself: whatever is allowed is YAML that means
// what it says.
func FuzzObjects(f *testing.F) {
	f.Add("192.0.2.1:80,name=web", "10.0.0.1:80,weight=2")
	f.Add(":80/udp", "[fd00::1]")
	f.Add("[2001:db8::]:1/TCP", "[fd00::]:65535,weight=0")
	f.Add("1.2.3.4:80,name=a\n---\nkind: Secret", "1.2.3.4\": [")
	f.Fuzz(func(t *testing.T, listen, backend string) {
		documents, err := shortform.Objects(flags("--listen", listen, "--backend", backend), "blixt")
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "--") || !utf8.ValidString(line) || len(line) > 600 {
					t.Errorf("%q", line)
				}
			}
			return
		}
		set := parse(t, text(documents))
		if len(set.Objects.Gateways) != 1 || len(set.Objects.TCPRoutes)+len(set.Objects.UDPRoutes) != 1 || len(set.Objects.Services) != 1 || len(set.EndpointSlices) != 1 {
			t.Errorf("%q %q has other objects", listen, backend)
		}
	})
}
