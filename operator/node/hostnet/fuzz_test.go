// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzMessages parses what no kernel would send, as a later one may send more than this
// one.
func FuzzMessages(f *testing.F) {
	for _, kind := range []uint16{unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWROUTE, unix.RTM_NEWNEXTHOP} {
		f.Add(request(kind, 0, nil))
		body := appendAttribute(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, []byte("eth0"))
		body = appendAttribute(body, unix.IFLA_PROP_LIST, appendAttribute(nil, unix.IFLA_ALT_IFNAME, []byte("lan\x00")))
		f.Add(request(kind, 0, body))
		f.Add(request(kind, 0, appendAttribute(make([]byte, unix.SizeofRtMsg), unix.RTA_MULTIPATH, make([]byte, unix.SizeofRtNexthop))))
		f.Add(request(kind, 0, appendAttribute(make([]byte, unix.SizeofIfAddrmsg), unix.IFA_ADDRESS, make([]byte, 4))))
	}
	f.Fuzz(func(_ *testing.T, buf []byte) {
		table := newTable()
		for m := range messages(buf) {
			table.apply(m)
			parseDefault(m.body)
			parseNexthop(m.body)
			if len(m.body) >= unix.SizeofRtMsg {
				_, _ = parseWay(m.body)
			}
		}
		s := table.snapshot()
		(&Memory{}).See(s, time.Now(), func(Address) bool { return false })
		(&Choice{}).Choose(s)
	})
}
