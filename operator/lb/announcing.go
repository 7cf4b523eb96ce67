// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// Limits of what is said of nodes that announce clients to each other.
const (
	// AnnounceKeys is how many keys there may be at a time: their ids are below.
	AnnounceKeys = 4
	// MaxNodeAddresses is how many addresses of a node an agent may name.
	MaxNodeAddresses = 16
	// MaxPairs is how many other nodes an agent says something of.
	MaxPairs = 16
	// MaxReasons is how many reasons it gives.
	MaxReasons = 8
)

// AnnounceKey signs what nodes announce to each other. It is secret: text made of it
// shows nothing of it.
type AnnounceKey [16]byte

// String hides the key.
func (AnnounceKey) String() string { return "(secret)" }

// GoString hides the key.
func (AnnounceKey) GoString() string { return "(secret)" }

// MarshalText hides the key, in JSON as well.
func (AnnounceKey) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Sum tells whether two keys are the same, and tells nothing else of them. Only who
// has the key can name it.
func (k AnnounceKey) Sum() uint64 {
	hash := sha256.Sum256(append([]byte("blixt announce key\x00"), k[:]...))
	return binary.BigEndian.Uint64(hash[:])
}

// Boot is the number of a kernel's boot, for its messages: each boot of a node has
// the next one.
type Boot struct {
	// ID is the kernel's own, which is random.
	ID     string `json:"id"`
	Number uint16 `json:"number"` // 0: none
}

// NextBoot returns the boot number that follows on another one, in a circle without
// 0.
func NextBoot(n uint16) uint16 {
	if n++; n == 0 {
		n = 1
	}
	return n
}

// Forms are forms of messages, as bits 1<<i for 0 <= i < FormCount.
type Forms uint8

// FormCount is how many forms of messages there are: within a packet or alone, TCP or
// UDP, IPv4 or IPv6.
const FormCount = 8

// FormOf returns a form.
func FormOf(alone, udp, ipv6 bool) Forms {
	i := 0
	for bit, is := range []bool{alone, udp, ipv6} {
		if is {
			i |= 1 << bit
		}
	}
	return 1 << i
}

// String names the forms, as "TCP/IPv4, UDP/IPv6 alone".
func (f Forms) String() string {
	var names []string
	for i := range FormCount {
		if f&(1<<i) == 0 {
			continue
		}
		name := "TCP"
		if i&2 != 0 {
			name = "UDP"
		}
		if i&4 != 0 {
			name += "/IPv6"
		} else {
			name += "/IPv4"
		}
		if i&1 != 0 {
			name += " alone"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// Reasons why a backend on another node sees the address of the node that a client
// came in by, and not the client's. The first ones are the agent's to find out,
// the others the operator's, which gives them for each node.
const (
	ReasonNoKey     = "NoKey"     // this node has no key yet
	ReasonNotProbed = "NotProbed" // the other node was not probed yet
	ReasonNoAnswer  = "NoAnswer"  // probes are not answered: what is between the nodes drops them
	ReasonNoPeer    = "NoPeer"    // no peer of that name is known

	ReasonEarlier     = "EarlierVersion" // its agent or program is of a version that undoes nothing
	ReasonNotAcked    = "NotAcked"       // its maps do not hold the key that signs
	ReasonNoHeartbeat = "NoHeartbeat"    // its program sees no packets
	ReasonAway        = "Away"           // its agent has not reported to this operator
	ReasonNoAddress   = "NoAddress"      // no address of it can be believed
)

// Unannounced is a number of backends that see a node's address for one reason.
type Unannounced struct {
	Reason   string `json:"reason"`
	Backends int    `json:"backends"`
}

// Pair is how a node gets on with another node, to which it announces clients.
type Pair struct {
	Node string `json:"node"`
	// Answered and Unanswered are the forms in which the other node has, or has not,
	// answered probes of late.
	Answered   Forms `json:"answered"`
	Unanswered Forms `json:"unanswered"`
	// What the program counts of messages from the other node: flows whose
	// sources are undone, and those that keep the other node's address; messages
	// refused; questions sent.
	Undone  uint64 `json:"undone"`
	Plain   uint64 `json:"plain"`
	Refused uint64 `json:"refused"`
	Asked   uint64 `json:"asked"`
	// Unannounced is how many backends on the other node see this node's address.
	Unannounced int `json:"unannounced"`
}

// Announcing is how far a node announces clients to others, and undoes what they
// announce.
type Announcing struct {
	// Backends are those on other nodes that are to see their clients, Unannounced
	// why some do not.
	Backends    int           `json:"backends"`
	Unannounced []Unannounced `json:"unannounced,omitempty"`
	// Peers is how many other nodes there are, Failing how many of them do not answer
	// in each form that they should.
	Peers   int `json:"peers"`
	Failing int `json:"failing"`
	// Pairs are at most MaxPairs, the worst first.
	Pairs []Pair `json:"pairs,omitempty"`
}
