// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// ListenerPortWarning is a condition of listeners of Gateways and ListenerSets. It
// is there, and True, only while something is wrong with a port of a node's address
// that the listener has. Such a listener is Programmed like any other.
const ListenerPortWarning = GroupName + "/PortWarning"

// Reasons of ListenerPortWarning.
const (
	// ReasonPortNotAllowed: the listener would not get the port now. It keeps the
	// port because it was served before the BlixtConfig, or its default, changed.
	ReasonPortNotAllowed = "PortNotAllowed"
	// ReasonHostPort: a pod has the port as hostPort, and came later.
	ReasonHostPort = "HostPort"
	// ReasonHostListens: a socket of a node listens at the port. That node's own
	// connections go to the socket, and not to the listener.
	ReasonHostListens = "HostListens"
)
