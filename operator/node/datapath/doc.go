// SPDX-License-Identifier: Apache-2.0

// Package datapath makes the maps of the data plane hold an lb.State. In come a
// state and Contents, which is what the maps hold. Out comes a Plan: the writes
// that lead from one to the other, in an order in which no packet ever sees
// half a change. Apply carries the plan out on Tables: the kernel's maps, or
// Fake.
//
// The kernel's maps are the only memory: Read makes Contents of them, of
// whatever a previous writer, killed at any point, has left.
package datapath
