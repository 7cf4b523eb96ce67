// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"time"
)

// Use is how full a table is, in entries.
type Use struct {
	Used int `json:"used"`
	Size int `json:"size"`
}

// TableFullError means that a state does not fit into a table. Nothing of the
// state was written.
type TableFullError struct {
	// Table is the name of the map.
	Table string `json:"table"`
	// Size is the number of entries, or of ring slots, that the table has.
	Size int `json:"size"`
	// Needed is the number that the state needs.
	Needed int `json:"needed"`
	// Largest is the longest run of free entries, if the table has enough of
	// them but not in a row. Otherwise it is 0.
	Largest int `json:"largest,omitempty"`
}

func (e *TableFullError) Error() string {
	if e.Largest > 0 {
		return fmt.Sprintf("table %s of size %d is fragmented: no %d entries in a row, at most %d", e.Table, e.Size, e.Needed, e.Largest)
	}
	return fmt.Sprintf("table %s of size %d is too small: %d needed", e.Table, e.Size, e.Needed)
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
	LastContact time.Time `json:"lastContact"`
	Kernel      string    `json:"kernel"`
	Layout      int       `json:"layout"`
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
	// Error says why the maps do not hold the newest version that the agent
	// has received. TableFull is set as well if a table is too small.
	Error     string          `json:"error"`
	TableFull *TableFullError `json:"tableFull,omitempty"`
	// Drift says when another writer changed the maps, or is empty.
	Drift string `json:"drift"`
	// Tables are the tables' use, by the names of the maps.
	Tables map[string]Use `json:"tables"`
}
