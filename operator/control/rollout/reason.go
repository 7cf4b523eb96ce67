// SPDX-License-Identifier: Apache-2.0

package rollout

// Reasons of the condition Ready of a NodeDataplane.
const (
	// Serving: the node serves what it should.
	Serving = "Serving"
	// ServingPrevious: the node serves with the previous bytecode, and will
	// change over.
	ServingPrevious = "ServingPrevious"
	// UpgradeBlocked: the node serves with the previous bytecode, because it
	// cannot run the new one. It is a reason of problems too.
	UpgradeBlocked = "UpgradeBlocked"
	// NotLoaded: bpfman has not loaded the program, or not reported it yet.
	NotLoaded = "NotLoaded"
	// LoadFailed: bpfman could not load the program.
	LoadFailed = "LoadFailed"
	// StateStuck: the API server refuses bpfman's report, and bpfman loads the
	// program again and again.
	StateStuck = "StateStuck"
	// LinksMissing: bpfman reports success, but has not attached the program
	// everywhere that it should.
	LinksMissing = "LinksMissing"
	// NotAttached: bpfman could not attach the program, or not yet.
	NotAttached = "NotAttached"
	// ReloadedProgram: bpfman has loaded the program anew, and the agent has
	// the maps of the previous one.
	ReloadedProgram = "ReloadedProgram"
	// NoAgent: no agent has filled the maps yet.
	NoAgent = "NoAgent"
	// AgentLost: the agent is not connected; the kernel serves what it has.
	AgentLost = "AgentLost"
	// ProgramGone: the program receives no packets, though bpfman reports that
	// it is attached.
	ProgramGone = "ProgramGone"
	// TableFull: not all that is to be served fits into the program's tables. The
	// node serves the rest.
	TableFull = "TableFull"
	// WriteFailed: the agent could not write the maps.
	WriteFailed = "WriteFailed"
	// Outdated: the maps have not held the current state for more than 30
	// seconds.
	Outdated = "Outdated"
	// NotSelected: the node is no longer to take part.
	NotSelected = "NotSelected"
)

// Reasons of the condition Drifted of a NodeDataplane, besides those of Ready
// for which the program is not in the kernel or not attached.
const (
	// AsAsked: the kernel holds what was asked for.
	AsAsked = "AsAsked"
	// OtherBytecode: new connections are served by another program than the one
	// that was asked for.
	OtherBytecode = "OtherBytecode"
	// ForeignWriter: another writer has changed the maps.
	ForeignWriter = "ForeignWriter"
	// Orphans: bpfman may have left copies of the program attached.
	Orphans = "Orphans"
)

// Reasons of the problems and events of a rollout.
const (
	// Loading: a new application is created.
	Loading = "Loading"
	// Draining: the previous application accepts no new connections on any node.
	Draining = "Draining"
	// Unloading: the previous application is deleted.
	Unloading = "Unloading"
	// UpgradeWaiting: there is no room for another application yet.
	UpgradeWaiting = "UpgradeWaiting"
	// OtherLayout: the maps are of a layout that this version does not write.
	OtherLayout = "OtherLayout"
	// BytecodeRefused: the bytecode must not be loaded.
	BytecodeRefused = "BytecodeRefused"
	// DeleteFailed: bpfman cannot delete an application.
	DeleteFailed = "DeleteFailed"
)
