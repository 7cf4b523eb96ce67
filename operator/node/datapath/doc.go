// SPDX-License-Identifier: Apache-2.0

// Package datapath makes the maps of the data plane hold an lb.State. In
// come a state and an Image, what the maps hold; out comes a Plan, the writes
// that lead from one to the other in an order in which no packet ever sees
// half a change. Apply carries it out on Tables: the kernel's maps, or Fake.
//
// The kernel's maps are the only memory: Read makes an Image of them, of
// whatever an agent before this one, killed at any point, has left.
package datapath
