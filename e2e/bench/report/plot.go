// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// A plot is horizontal bars in groups.
type plot struct {
	title, unit string
	// line is a value to compare with, 0: none.
	line   float64
	groups []group
}

// group is bars that belong together.
type group struct {
	name string
	bars []bar
}

type bar struct {
	name  string
	value float64
	ours  bool // Blixt's
}

// Sizes of a plot, in pixels, and colours that differ in brightness too.
const (
	plotWidth = 760
	plotLeft  = 230
	plotRight = 70
	barHeight = 16
	barPitch  = 20
	groupGap  = 26
	oursColor = "#1f5fbf"
	elseColor = "#b0b7c3"
)

// svg draws the plot.
func (p plot) svg() string {
	var b strings.Builder
	text := func(x, y float64, anchor, style, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>`, x, y, anchor, style)
		_ = xml.EscapeText(&b, []byte(s)) // a Builder returns no error
		b.WriteString("</text>\n")
	}
	most := p.line
	height := 50.0
	for _, g := range p.groups {
		height += groupGap + float64(len(g.bars))*barPitch
		for _, bar := range g.bars {
			most = max(most, bar.value)
		}
	}
	scale := (plotWidth - plotLeft - plotRight) / max(most, 1e-9)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" viewBox="0 0 %d %.0f" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%.0f" fill="#ffffff"/>`+"\n", plotWidth, height)
	text(12, 22, "start", ` font-size="15" font-weight="bold"`, p.title)
	text(12, 40, "start", ` fill="#555555"`, p.unit)
	y := 50.0
	for _, g := range p.groups {
		text(12, y+groupGap-10, "start", ` font-weight="bold"`, g.name)
		y += groupGap
		for _, bar := range g.bars {
			color := elseColor
			if bar.ours {
				color = oursColor
			}
			text(plotLeft-8, y+barHeight-4, "end", "", bar.name)
			fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLeft, y, bar.value*scale, barHeight, color)
			text(plotLeft+bar.value*scale+5, y+barHeight-4, "start", "", number(bar.value))
			y += barPitch
		}
	}
	if p.line > 0 {
		x := plotLeft + p.line*scale
		fmt.Fprintf(&b, `<line x1="%.1f" y1="50" x2="%.1f" y2="%.1f" stroke="#c03030" stroke-dasharray="4 3"/>`+"\n", x, x, height-4)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// names are what figures' names mean to people.
var names = map[string]string{
	"empty": "forwarding, empty program", "miss": "Blixt, not its packet", "local": "Blixt, backend on this node",
	"remote": "Blixt, backend elsewhere", "nft": "nftables, DNAT", "nft masq": "nftables, DNAT + masquerade",
	"forward": "forwarding", "forward to 2": "forwarding to two", "HAProxy": "HAProxy", "nginx": "nginx stream",
}

func ours(name string) bool { return name == "miss" || name == "local" || name == "remote" }

// plots returns all plots by the names of their files.
func (r *Result) plots() map[string]plot {
	group := func(name string, paths []string, value func(path string) (float64, bool)) group {
		g := group{name: name}
		for _, p := range paths {
			if x, is := value(p); is {
				g.bars = append(g.bars, bar{names[p], x, ours(p)})
			}
		}
		return g
	}
	ratios := plot{title: "CPU time of a packet, to plain forwarding to as many backends", line: 1,
		unit: "64 bytes of UDP, 1,024 flows; forwarding = 1; shorter is better"}
	for _, kind := range []string{"", ", reply", ", IPv6", ", IPv6, reply"} {
		name := "requests" + kind
		if strings.HasSuffix(kind, ", reply") {
			name = "replies" + strings.TrimSuffix(kind, ", reply")
		}
		ratios.groups = append(ratios.groups, group(name, []string{"empty", "miss", "local", "remote", "nft", "nft masq"}, func(p string) (float64, bool) {
			to := "forward to 2"
			if p == "empty" || p == "miss" {
				to = "forward"
			}
			return ratio(Live, p+kind, perPacket, to+kind)(r)
		}))
	}
	flows := plot{title: "CPU time of a packet, by the number of flows", unit: "ns for 64 bytes of UDP, without what the generator costs; shorter is better"}
	for _, kind := range []struct{ suffix, name string }{{", 1 flow", "1 flow"}, {"", "1,024 flows"}, {", 64K flows", "65,536 flows"}} {
		flows.groups = append(flows.groups, group(kind.name, []string{"forward", "local", "remote", "nft", "nft masq"}, func(p string) (float64, bool) {
			return value(Live, p+kind.suffix, perPacket, 1)(r)
		}))
	}
	tcp := plot{title: "TCP, to plain forwarding", unit: "one backend; client, balancer and backend share the CPUs; forwarding = 1; longer is better", line: 1}
	for _, kind := range []struct{ suffix, name, unit string }{{", connections", "short connections a second", "1/s"}, {", bulk", "bytes a second of 4 connections", "MB/s"}} {
		tcp.groups = append(tcp.groups, group(kind.name, []string{"miss", "local", "remote", "nft", "HAProxy", "nginx"}, func(p string) (float64, bool) {
			return ratio(TCP, p+kind.suffix, kind.unit, "forward"+kind.suffix)(r)
		}))
	}
	micro := plot{title: "The program alone, TCP over IPv4", unit: "ns of a packet to a backend on this node, without the harness; shorter is better"}
	for _, n := range []struct{ flows, name string }{{"1", "1 flow"}, {"1024", "1,024 flows"}, {"65536", "65,536 flows"}, {"1048576", "1,048,576 flows"}} {
		g := group(n.name, []string{"local", "remote", "miss"}, func(p string) (float64, bool) {
			return value(Micro, "Packet/"+p+"/TCPv4/flows="+n.flows, "net-ns/packet", 1)(r)
		})
		for _, floor := range []struct{ unit, name string }{{"floor-ns/packet", "VIP hash, LRU conntrack, DNAT"}, {"stateless-ns/packet", "stateless, Maglev"}, {"cache-ns/packet", "a flow cache alone"}} {
			if f, is := r.Figure(Micro, "Packet/local/TCPv4/flows="+n.flows, floor.unit); is {
				g.bars = append(g.bars, bar{floor.name, max(f.Best, 0), false})
			}
		}
		micro.groups = append(micro.groups, g)
	}
	return map[string]plot{"live.svg": ratios, "flows.svg": flows, "tcp.svg": tcp, "micro.svg": micro}
}
