// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Use is how full a table is, in entries.
type Use struct {
	Used int `json:"used"`
	Size int `json:"size"`
}

// TableFull says what a node leaves out of a state because a table is full. All
// the rest of the state is served.
type TableFull struct {
	// Table is the name of the map.
	Table string `json:"table"`
	// Size is the number of entries, or of ring slots, that the table has.
	Size int `json:"size"`
	// Needed is the number that the whole state needs. It may be below Size: slots
	// that are free may not be in a row.
	Needed int `json:"needed"`
	// Frontends is how many frontends are left out, and Reduced how many are served
	// with fewer backends, or with a smaller ring, than they should be. Both are 0
	// in the report of an agent of an earlier version, which has written nothing
	// of the state.
	Frontends int `json:"frontends,omitempty"`
	Reduced   int `json:"reduced,omitempty"`
	// Examples are some of the frontends that are left out, and Gateways are the
	// Gateways of them, as far as a report has room for their names.
	Examples []string `json:"examples,omitempty"`
	Gateways []string `json:"gateways,omitempty"`
	// Policies are those of which something is not in force, by namespace/name, as
	// PolicyTable is full: what was in force before still is. Refusing is how many frontends
	// refuse all new flows, as the sources of one of their policies were never in force.
	Policies    []string `json:"policies,omitempty"`
	PolicyTable string   `json:"policyTable,omitempty"`
	Refusing    int      `json:"refusing,omitempty"`
}

// Limits of the names in a TableFull. An agent's message has 64 KiB at most, and
// names come from others.
const (
	MaxExamples   = 5
	maxNamedBytes = 16 << 10
)

// Name adds a frontend that is left out to the examples, and its Gateway.
func (f *TableFull) Name(key Key, gateway string) {
	if len(f.Examples) < MaxExamples {
		f.Examples = append(f.Examples, key.String())
	}
	f.Gateways = addName(f.Gateways, gateway)
}

// NamePolicy adds a policy of which something is not in force, and the table that is full.
func (f *TableFull) NamePolicy(policy, table string) {
	if f.PolicyTable == "" {
		f.PolicyTable = table
	}
	f.Policies = addName(f.Policies, policy)
}

// addName adds a name, once and if there is room for it.
func addName(names []string, name string) []string {
	size := len(name)
	for _, n := range names {
		size += len(n)
	}
	if size > maxNamedBytes || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// RestHolds reports whether the node serves all that is not left out: an agent of an earlier
// version has written nothing of the state.
func (f *TableFull) RestHolds() bool { return f.Frontends+f.Reduced+f.Refusing+len(f.Policies) > 0 }

// String says which table is full, and how many frontends that concerns.
func (f *TableFull) String() string {
	text := fmt.Sprintf("table %s has %d entries, and %d are needed", f.Table, f.Size, f.Needed)
	if f.Needed <= f.Size {
		text = fmt.Sprintf("table %s has %d entries, and those that are free are not in a row", f.Table, f.Size)
	}
	if f.Table == "" { // of policies alone
		text = fmt.Sprintf("table %s has %d entries, and %d are needed", f.PolicyTable, f.Size, f.Needed)
	}
	if f.Frontends > 0 {
		text += fmt.Sprintf("; frontends left out: %d (%s)", f.Frontends, strings.Join(f.Examples, ", "))
		if f.Frontends > len(f.Examples) {
			text = strings.TrimSuffix(text, ")") + ", ...)"
		}
	}
	if f.Reduced > 0 {
		text += fmt.Sprintf("; frontends with fewer backends or a smaller ring than they should have: %d", f.Reduced)
	}
	if len(f.Policies) > 0 {
		text += fmt.Sprintf("; table %s has no room for all of the policies %s", f.PolicyTable, examples(f.Policies))
	}
	if f.Refusing > 0 {
		text += fmt.Sprintf("; frontends that refuse all new connections until their policy has room: %d", f.Refusing)
	}
	return text
}

// examples returns the first of some names.
func examples(names []string) string {
	text := strings.Join(names[:min(len(names), MaxExamples)], ", ")
	if len(names) > MaxExamples {
		text += ", ..."
	}
	return text
}

// What a Report holds of frontends at which the node itself listens.
const (
	HostListensFor = 10 * time.Minute
	MaxHostListens = 256
)

// Report is what the operator knows of an agent, which is that of one
// application on one node.
type Report struct {
	Node        string `json:"node"`
	Application string `json:"application"`
	Pod         string `json:"pod"` // namespace/name
	// Connected is false for an agent that has left. The kernel still serves
	// what the report says.
	Connected   bool      `json:"connected"`
	ConnectedAt time.Time `json:"connectedAt,omitzero"`
	LastContact time.Time `json:"lastContact"`
	Kernel      string    `json:"kernel"`
	Layout      int       `json:"layout"`
	// EnforcesPolicies is true if the program knows restrictions. Without it, frontends that
	// have some refuse all new flows on the node.
	EnforcesPolicies bool `json:"enforcesPolicies"`
	// Version and StateHash are what the maps hold, zero before the first state
	// is written. AckedAt is when the operator first received this Version.
	Version   Version   `json:"version"`
	AckedAt   time.Time `json:"ackedAt"`
	StateHash string    `json:"stateHash"`
	Frontends int       `json:"frontends"`
	Backends  int       `json:"backends"`
	// Flows is the number of flows at the last count. While the program drains,
	// it is the number of flows that would break without the application.
	Flows    uint64 `json:"flows"`
	Draining bool   `json:"draining"`
	// AnsweredElsewhereAt is when a flow last began whose backend, on the node,
	// answers by an interface without the program; zero: never.
	AnsweredElsewhereAt time.Time `json:"answeredElsewhereAt,omitzero"`
	// HostListens are frontends at which a socket of the node itself listens,
	// sorted: the node gets their new connections. The program notices when one
	// comes, so a listener that nobody connects to is not among them, and one is
	// for HostListensFor after the last connection. At most MaxHostListens.
	HostListens []Key `json:"hostListens,omitempty"`
	// SNAT are the source ports that the program uses.
	SNAT PortRange `json:"snat,omitzero"`
	// PacketsSeenAt is when the program was last known to see packets.
	PacketsSeenAt time.Time `json:"packetsSeenAt"`
	// HeartbeatLost is true if the program has seen no packet at ingress, or
	// none at egress, for too long: a link or the program is missing.
	HeartbeatLost bool `json:"heartbeatLost"`
	// Error says why the maps do not hold all of the newest version that the agent
	// has received. TableFull is set as well if a table is full.
	Error     string     `json:"error"`
	TableFull *TableFull `json:"tableFull,omitempty"`
	// Drift says when another writer changed the maps, or is empty.
	Drift string `json:"drift"`
	// Boot is the boot of the node's kernel. UndoesNot is why clients are not announced
	// to the node; "": they are. IgnoredAddresses are those that its agent claims, and
	// neither its Node object nor its podCIDRs support. All three are of programs that
	// announce clients alone, and so is Announcing.
	Boot             Boot         `json:"boot,omitzero"`
	UndoesNot        string       `json:"undoesNot,omitempty"`
	IgnoredAddresses []netip.Addr `json:"ignoredAddresses,omitempty"`
	Announcing       *Announcing  `json:"announcing,omitempty"`
	// Tables are the tables' use, by the names of the maps.
	Tables map[string]Use `json:"tables"`
}
