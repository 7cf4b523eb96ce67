// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// elsewhere is when the program last counted a flow whose backend answers by an
// interface without the program. What it counted before the first sample may have
// been remedied since.
type elsewhere struct {
	sampled bool
	count   uint64
	last    time.Time
}

// sample compares the program's counter with that of the sample before.
func (e *elsewhere) sample(now time.Time, count uint64) {
	if e.sampled && count > e.count { // less: the program was loaded again
		e.last = now
	}
	e.sampled, e.count = true, count
}
