// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Conditions of BlixtPolicies beside Accepted, by GEP-713, and ResolvedRefs.
const (
	// PolicyProgrammed says whether nodes enforce the policy on the Gateway of the ancestor. A
	// policy that is not accepted there has no such condition.
	PolicyProgrammed = "Programmed"
	// PolicyWarning is there, and True, only while the policy says something that nobody can mean, or
	// what it says of the health of backends is not obeyed.
	PolicyWarning = "Warning"
	// PolicyAggregated is there, and True, only while the status has no room for all Gateways
	// of the policy. It holds on all of them.
	PolicyAggregated = "Aggregated"
)

// Reasons of PolicyProgrammed.
const (
	PolicyReasonProgrammed = "Programmed"
	// PolicyReasonPartiallyProgrammed: other policies have the last word about a part of it, or
	// a part cannot hold for everybody.
	PolicyReasonPartiallyProgrammed = "PartiallyProgrammed"
	// PolicyReasonOverridden: other policies have the last word about all of it.
	PolicyReasonOverridden = "Overridden"
	// PolicyReasonReconciling: nodes have not reported that they enforce it.
	PolicyReasonReconciling = "Reconciling"
	// PolicyReasonNoCapacity: a table of nodes has no room.
	PolicyReasonNoCapacity = "NoCapacity"
)

// PolicyReasonHealthNotObeyed is a reason of PolicyWarning: all backends fail their check at once, or
// too few are healthy to serve alone. The message says which.
const PolicyReasonHealthNotObeyed = "HealthNotObeyed"

// PolicyReasonForeign is a reason of Accepted of targets: the target is of another controller, or
// of none.
const PolicyReasonForeign = "Foreign"

// PolicyReasonBackendNotFound is a reason of ResolvedRefs: spec.failover names what is not among
// the backendRefs of the route.
const PolicyReasonBackendNotFound = "BackendNotFound"

// PolicyAffected is a condition of Gateways, ListenerSets, their listeners and the parents of
// routes. It is there, and True, only while BlixtPolicies concern the object. The message names them.
const PolicyAffected = GroupName + "/BlixtPolicyAffected"

// ReasonAffected is the only reason of PolicyAffected.
const ReasonAffected = "Affected"
