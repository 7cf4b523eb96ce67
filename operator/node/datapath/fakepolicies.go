// SPDX-License-Identifier: Apache-2.0

package datapath

// EnforcesPolicies implements Tables.
func (f *Fake) EnforcesPolicies() bool { return !f.Earlier }
