// SPDX-License-Identifier: Apache-2.0

package manifest

import "strconv"

// At returns file and line of an object by its name, such as Service default/web; "":
// there is no such object.
func (s *Set) At(name string) string {
	found, is := s.seen[name]
	if !is {
		return ""
	}
	return found.File + ":" + strconv.Itoa(found.Line)
}
