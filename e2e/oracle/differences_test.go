// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"regexp"
	"slices"
	"strings"
)

// expectation is a difference that is as it should be, or a fault that is known, and
// why. Each part is a regular expression that has to match; none matches everything.
type expectation struct {
	why             string
	kind, step      string
	nftables, blixt string
	used            int
}

var compiled = map[string]*regexp.Regexp{}

func compile(pattern string) *regexp.Regexp {
	if compiled[pattern] == nil {
		compiled[pattern] = regexp.MustCompile("(?ms)" + pattern)
	}
	return compiled[pattern]
}

func matches(pattern, text string) bool { return compile(pattern).MatchString(text) }

func (e *expectation) matches(d difference) bool {
	return matches(e.kind, d.kind.name) && matches(e.step, d.step) &&
		matches(e.nftables, strings.Join(d.nftables, "\n")) && matches(e.blixt, strings.Join(d.blixt, "\n"))
}

// detail is a part of a description that may differ, in a packet that arrives in both
// networks: what matches the pattern counts as if it read as told.
type detail struct {
	why, pattern, as string
	used             int
}

func (x *detail) concerns(lines []string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return matches(x.pattern, l) })
}

func (x *detail) apply(lines []string) (as []string) {
	for _, l := range lines {
		as = append(as, compile(x.pattern).ReplaceAllString(l, x.as))
	}
	slices.Sort(as)
	return as
}

// What begins with "fault" is to be mended, all else is as it should be.

var details = []detail{
	{
		why:     "an ICMP error of Blixt is never fragmented and needs no identification, so it has DF (RFC 6864, 4.1)",
		pattern: " DF ICMP (vip|inside) > (client|stranger|server) type (3|11) ", as: " ICMP $1 > $2 type $3 ",
	},
	{
		why:     "a privileged source port stays one (RFC 4787, REQ-3a). Linux keeps those below 512 apart",
		pattern: "inside:below 512", as: "inside:below 1024",
	},
	{
		why:     "Blixt makes the echo reply of the request and leaves its DF as it is; Linux makes another packet",
		pattern: "DF ICMP vip > client type 0", as: "ICMP vip > client type 0",
	},
	{
		why:     "nftables puts datagrams together, so that the host quotes the whole one; Blixt quotes the first fragment",
		pattern: "quotes IPv. of [0-9]+ bytes (client|stranger) > (vip|outside) protocol 17 (DF )?ports [a-z0-9]+ 8[23], ........", as: "quotes it",
	},
	{
		why:     "an ICMP error is not ECN-capable (RFC 3168, 6.1.1); Linux copies one of its two bits",
		pattern: " tos 0xc2( DF)? ICMP", as: " tos 0xc0$1 ICMP",
	},
	{
		why:     "a host answers options of IPv4 by its own rules (RFC 1122, 3.2.1.8); Blixt makes the RST of the packet, options and all",
		pattern: "( options [0-9a-f]+)? TCP vip:82 > client:own RST", as: " TCP vip:82 > client:own RST",
	},
	{
		why:     "a host answers with the traffic class of its socket, which is none here; Blixt makes the RST of the packet",
		pattern: " tos 0x[0-9a-f]+( DF)? TCP vip", as: "${1} TCP vip",
	},
}

var expected = []expectation{
	// TCP flags.
	{
		why:  "conntrack takes these flags or numbers for invalid: its host gets the segment, and resets. Blixt believes neither: the server decides",
		kind: "^TCP .* (without|of a client within) a connection", nftables: `^client gets [^\n]* TCP vip:8[01] > client:own RST[^\n]*\z`, blixt: `\A(remote|local) gets [^\n]* > server:8080 [^\n]*\z`,
	},
	{
		why:  "conntrack drops what it takes for invalid, where the host would not answer. With Blixt the server decides",
		kind: "^TCP .* (without|of a client within) a connection", nftables: `\A\z`, blixt: `\A(remote|local) gets [^\n]* > server:8080 [^\n]*\z`,
	},
	{
		why:  "what conntrack takes for invalid of a local server leaves with the server's address. Blixt translates it",
		kind: "^TCP .* of a server within a connection", nftables: `^client gets [^\n]* server:8080 > client:own [^\n]*\z`, blixt: `^client gets [^\n]* TCP vip:81 > client:own [^\n]*\z`,
	},
	{
		why:  "what conntrack takes for invalid of a remote server is for its host, which resets or drops it. Blixt translates it",
		kind: "^TCP .* of a server within a connection", nftables: `\A(remote gets [^\n]* TCP inside:any > server:8080 RST[^\n]*)?\z`, blixt: `^client gets [^\n]* TCP vip:80 > client:own [^\n]*\z`,
	},
	// Checksums and lengths.
	{
		why:  "conntrack verifies checksums and lengths of UDP and TCP. Blixt leaves that to the receiver",
		kind: "(checksum|^UDP length|a length of a part)", nftables: `\A\z`, blixt: `^(remote|local) gets [^\n]* server:8080 `,
	},
	{
		why:  "and so a server that does not verify them may answer",
		kind: "wrong checksum", step: "server sends datagram", nftables: `\A\z`, blixt: `^client gets [^\n]* vip:8. > client:own`,
	},
	{
		why:  "a host verifies checksums and lengths before it answers. Blixt answers what nobody serves without that",
		kind: "(checksum|^UDP length).*unserved", nftables: `\A\z`, blixt: `^client gets [^\n]* (TCP vip:82|ICMP vip) > client`,
	},
	// ICMP and other protocols.
	{
		why:  "the host knows other queries and protocols than echo, or says that it does not. Blixt drops them, counted",
		kind: "^(other query|protocol|unknown type)", nftables: `^client gets [^\n]* ICMP vip > client`, blixt: `\A\z`,
	},
	// Sizes and fragments.
	{
		why:  "nftables puts any datagram together. Blixt keeps eight fragments until the first one comes, and none that leave this host",
		kind: "in fragments", nftables: `^(remote|local|client) gets [^\n]* data (4000|1411|60000|40|none) [^\n]*sum ok`, blixt: `FRAGMENT|\A\z`,
	},
	{
		why:  "conntrack keeps the parts of what never becomes whole. Blixt forwards them: no receiver makes anything of them",
		kind: "in fragments.*(missing|overlapping)", nftables: `\A\z`, blixt: `FRAGMENT`,
	},
	// Senders that cannot be.
	{
		why:  "Blixt answers whoever seems to send to what nobody serves: to the device that the packet came by, and at a limited rate",
		kind: "^(TCP|UDP) from (the|link-local).*unserved", nftables: `\A\z`, blixt: `\Aclient gets`,
	},
	{
		why:  "a host answers a datagram once it is whole. Blixt answers each first fragment",
		kind: "in fragments.*(missing|overlapping|twice).*unserved", blixt: `\Aclient gets [^\n]* ICMP vip > client type [13] code [34] rest 0x0 quotes it`,
	},
	{
		why:  "fragments of IPv6 that do not fit are answered once by nftables, which puts them together, and each by Blixt",
		kind: "UDP.* in fragments of 1(35|50)0.*IPv6", blixt: `ICMP (inside|gateway|outside|vip) > (client|server) type 2 code 0 rest 0x5(14|aa)`,
	},
	{
		why:  "nftables puts fragments together and makes others, without DF. Blixt forwards each as it is",
		kind: "UDP in fragments with DF", nftables: "sum ok", blixt: " DF UDP [^\n]*sum ok",
	},
	{
		why:  "a TCP header in two fragments is no header (RFC 3128): Blixt leaves it to the host. nftables puts it together",
		kind: "TCP (SYN in fragments|data in fragments of 1280, one of 8)", nftables: "sum ok", blixt: `FRAGMENT|\A\z`,
	},
	{
		why:  "masquerading mixes up fragments of two clients with one identification (RFC 6864, 5.3). Blixt gives them others",
		kind: "two clients.*remote", nftables: "length 2008 of 2009|FRAGMENT 1256-2009", blixt: "data 2001[^\n]*\n[^\n]*data 2000",
	},
	// ICMP errors.
	{
		why:  "conntrack verifies an ICMP error's checksum (RFC 5508, REQ-3). Blixt keeps what is wrong wrong, so that its receiver drops it",
		kind: "ICMP error with a wrong checksum", nftables: `\A\z`, blixt: "WRONG CHECKSUM",
	},
	{
		why:  "conntrack ignores an error that quotes less than 8 bytes of layer 4 (RFC 792). Ports are enough for Blixt",
		kind: "quoting 7 bytes", nftables: `\A\z`, blixt: "gets",
	},
	{
		why:  "nftables computes the checksum in a quoted datagram anew, which hides that it was wrong. Blixt keeps it wrong",
		kind: "quoting a wrong checksum", nftables: "quotes", blixt: "quotes",
	},
	{
		why:  "source quench is no more (RFC 6633), and unknown errors are for nobody: Blixt translates none of them",
		kind: "ICMP (source quench|unknown error)", nftables: "type (4|100)", blixt: `\A\z`,
	},
	{
		why:  "Linux forwards what comes from class E, broadcast or link-local addresses, and what seems to come from the host itself. Blixt begins no flow with a sender that it could not answer",
		kind: "^(TCP|UDP) from (class E|the|IPv4-|zero|link-local)", nftables: "gets", blixt: `\A\z`,
	},
	// Headers.
	{
		why:  "a host drops source routes (RFC 7126, 4.3) and options that must be known. Blixt answers what nobody serves whatever its options",
		kind: "with .*unserved", nftables: `\A\z|type (4|12) code`, blixt: `^client gets [^\n]* (TCP vip:82|ICMP vip)`,
	},
	{
		why:  "behind 8 extension headers Blixt looks for no port, and the host does not know the address",
		kind: "9 destination headers", nftables: "gets", blixt: `\A\z`,
	},
	{
		why:  "the balancer of nftables is a router that writes itself into the option. Blixt redirects and leaves options alone",
		kind: "with (record route|timestamp)", nftables: " options ", blixt: " options ",
	},
	{
		why:  "a host writes itself into such an option, and copies it into its ICMP error. Blixt sends no options",
		kind: "UDP with (record route|timestamp).*unserved", nftables: " options ", blixt: "ICMP vip > client type 3 code 3 rest 0x0 quotes it",
	},
	{
		why:  "options that are wrong are answered by the balancer of nftables, and by the next router behind Blixt",
		kind: "with (option past the end|hop-by-hop unknown, report).*remote", nftables: "hop 64 [^\n]*ICMP vip", blixt: "hop 63 [^\n]*ICMP vip",
	},
	// Links.
	{
		why:  "a host without that VLAN drops its frames. Blixt serves what reaches its device, with any tag, and answers with the same",
		kind: "in a frame of .* VLAN", nftables: `\A\z`, blixt: "gets",
	},
	{
		why:  "Blixt sends an answer back by the device that the packet came by; a host asks its routing table",
		kind: "from the server .*unserved", nftables: "remote gets", blixt: "client gets",
	},
}
