// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func TestSourceSetArrives(t *testing.T) {
	set := lb.SourceSet{
		Policy: "shop/web", OnlyAllowed: true,
		Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("2001:db8::/32")},
		Deny:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("2001:db8::1/128")},
	}
	d := &Decoder{}
	if got := d.SourceSet(EncodeSourceSet(&set)); d.Err != nil || !reflect.DeepEqual(got, set) {
		t.Errorf("%+v (%v), want %+v", got, d.Err, set)
	}
}

func TestMalformedSourceSetsAreErrors(t *testing.T) {
	many := []byte{}
	for i := range maxPrefixes + 1 {
		many = append(many, 10, byte(i>>16), byte(i>>8), byte(i), 32)
	}
	for why, s := range map[string]*SourceSet{
		"no policy":                  {},
		"prefixes of 4 bytes":        {Policy: "p", Allow4: []byte{10, 0, 0, 0}},
		"prefixes of 5 bytes":        {Policy: "p", Deny6: []byte{10, 0, 0, 0, 8}},
		"prefixes of 327685 bytes":   {Policy: "p", Allow4: many},
		"are 65537 prefixes":         {Policy: "p", Allow4: many[5:], Deny4: []byte{11, 0, 0, 0, 32}},
		"10.0.0.1/8 is not masked":   {Policy: "p", Allow4: []byte{10, 0, 0, 1, 8}},
		"invalid Prefix":             {Policy: "p", Allow4: []byte{10, 0, 0, 0, 33}},
		"not masked, or is no":       {Policy: "p", Deny6: append(make([]byte, 16), 129)},
		"::ffff:10.0.0.1/128 is not": {Policy: "p", Allow6: append(netip.MustParseAddr("::ffff:10.0.0.1").AsSlice(), 128)},
		"not in order":               {Policy: "p", Allow4: []byte{10, 0, 0, 0, 8, 9, 0, 0, 0, 8}},
		"is there twice":             {Policy: "p", Deny4: []byte{9, 0, 0, 0, 8, 9, 0, 0, 0, 8}},
		"both allowed and denied":    {Policy: "p", Allow4: []byte{9, 0, 0, 0, 8, 10, 0, 0, 0, 8}, Deny4: []byte{8, 0, 0, 0, 8, 10, 0, 0, 0, 8}},
	} {
		d := &Decoder{}
		if d.SourceSet(s); d.Err == nil || !strings.Contains(d.Err.Error(), why) {
			t.Errorf("error %v, want %q", d.Err, why)
		}
	}
}

func TestMalformedSettingsAreErrors(t *testing.T) {
	valid := func() *lb.Settings {
		return &lb.Settings{Restrictions: []lb.Restriction{{Policy: "p", Target: "t"}}, Affinity: &lb.Affinity{Bits4: 32, Bits6: 128}}
	}
	for why, change := range map[string]func(s *lb.Settings){
		"5 restrictions":               func(s *lb.Settings) { s.Restrictions = make([]lb.Restriction, 5) },
		"no policy or no target":       func(s *lb.Settings) { s.Restrictions[0].Policy = "" },
		"restriction 0 has":            func(s *lb.Settings) { s.Restrictions[0].Target = "" },
		"limits of p are for prefixes": func(s *lb.Settings) { s.Restrictions[0].Limits = &lb.Limits{Bits4: 33} },
		"prefixes of 32 and 129 bits":  func(s *lb.Settings) { s.Affinity.Bits6 = 129 },
		"prefixes of -1 and 128 bits":  func(s *lb.Settings) { s.Affinity.Bits4 = -1 },
		"duration -1ns":                func(s *lb.Settings) { s.MaxAge = -1 },
		"duration -2ns":                func(s *lb.Settings) { s.Failover = &lb.Failover{Hold: -2} },
		"duration -3ns":                func(s *lb.Settings) { s.Health = &lb.Health{Active: &lb.ActiveHealth{Timeout: -3}} },
		"duration -4ns":                func(s *lb.Settings) { s.Health = &lb.Health{Passive: &lb.PassiveHealth{Window: -4}} },
		"settings: 65":                 func(s *lb.Settings) { s.Refused = strings.Repeat("x", maxSettings) },
	} {
		s := valid()
		change(s)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		d := &Decoder{}
		if d.settings(text); d.Err == nil || !strings.Contains(d.Err.Error(), why) {
			t.Errorf("error %v, want %q", d.Err, why)
		}
	}
	for _, text := range []string{"{", "7", `{"ports":{"last":65536}}`, `{"restrictions":[{"limits":{"total":{"burst":-1}}}]}`} {
		d := &Decoder{}
		if d.settings([]byte(text)); d.Err == nil {
			t.Errorf("%s are settings", text)
		}
	}
	d := &Decoder{}
	if got := d.settings(encodeSettings(valid())); d.Err != nil || !got.Equal(valid()) {
		t.Errorf("%+v (%v)", got, d.Err)
	}
}

// What a later version adds does not keep an agent from serving.
func TestSettingsOfALaterVersion(t *testing.T) {
	d := &Decoder{}
	if s := d.settings([]byte(`{"maxAge":5,"colour":"green"}`)); d.Err != nil || s.MaxAge != 5 {
		t.Errorf("%+v (%v)", s, d.Err)
	}
}

// A frontend that is not restricted has no settings on the wire that it would not have had
// in an earlier version, so that sums are the same.
func TestFrontendWithoutPolicyIsAsBefore(t *testing.T) {
	if w := EncodeFrontend(gateway.Frontend{}); w.Settings != nil {
		t.Errorf("settings %s", w.Settings)
	}
}

// A program that knows no restrictions refuses all new flows of a frontend that has some,
// and keeps the flows that it has.
func TestFailClosed(t *testing.T) {
	open := gateway.Frontend{Refs: []gateway.Ref{{PortName: "a", Weight: 3}, {PortName: "b", Weight: 1}}, Reject: 7}
	for name, c := range map[string]struct {
		settings lb.Settings
		closed   bool
	}{
		"no policy":        {lb.Settings{}, false},
		"a choice":         {lb.Settings{MaxAge: 5, Affinity: &lb.Affinity{}}, false},
		"only counted":     {lb.Settings{Restrictions: []lb.Restriction{{Policy: "p", Target: "t", DryRun: true, Sources: true}}}, false},
		"sources":          {lb.Settings{Restrictions: []lb.Restriction{{DryRun: true}, {Policy: "p", Target: "t", Sources: true}}}, true},
		"limits":           {lb.Settings{Restrictions: []lb.Restriction{{Policy: "p", Target: "t", Limits: &lb.Limits{}}}}, true},
		"refused as whole": {lb.Settings{Refused: "the table is full"}, true},
	} {
		f := open
		f.Settings = c.settings
		got := FailClosed(f)
		if closed := got.Refs[0].Weight == 0 && got.Refs[1].Weight == 0 && got.Reject > 0; closed != c.closed || len(got.Refs) != 2 {
			t.Errorf("%s: %+v", name, got)
		}
		if open.Refs[0].Weight != 3 {
			t.Fatalf("%s: the frontend of other agents has changed", name)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 8}, bytes.Repeat([]byte{0}, 17), encodeSettings(&lb.Settings{MaxAge: 1}))
	f.Fuzz(func(t *testing.T, v4, v6, text []byte) {
		d := &Decoder{}
		set := d.SourceSet(&SourceSet{Policy: "p", Allow4: v4, Deny6: v6})
		settings := d.settings(text)
		if d.Err != nil {
			return
		}
		again := &Decoder{}
		if got := again.SourceSet(EncodeSourceSet(&set)); again.Err != nil || !got.Equal(&set) {
			t.Errorf("%+v is %+v (%v)", set, got, again.Err)
		}
		if got := again.settings(encodeSettings(&settings)); again.Err != nil || !got.Equal(&settings) && len(text) > 0 && !bytes.Equal(encodeSettings(&got), encodeSettings(&settings)) {
			t.Errorf("%+v is %+v (%v)", settings, got, again.Err)
		}
	})
}
