// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"net/url"
	"strconv"
	"unicode/utf8"
)

// Selection is what a reader wants to see. It is in the query of the stream's URL.
type Selection struct {
	// Search is part of the name, an address or a port of Gateways; "": all.
	Search string
	// Problems is true if only those with a problem are wanted.
	Problems bool
	// Sort is problem (those with problems first, then by name), name, or busy (most flows
	// first, where they are known).
	Sort string
	Page int // from 1
	// Open is a Gateway of which more backends are wanted; it is shown whatever the search.
	Open string
}

// The orders of Gateways.
const (
	ByProblem = "problem"
	ByName    = "name"
	ByFlows   = "busy"
)

// longestSearch is how many bytes a search may have: longer than any name of two parts.
const longestSearch = 320

// ParseSelection parses the query of a URL. It returns an error for what it does not know.
func ParseSelection(query string) (Selection, error) {
	s := Selection{Sort: ByProblem, Page: 1}
	values, err := url.ParseQuery(query)
	if err != nil {
		return s, err
	}
	for key, all := range values {
		value := all[0]
		if len(all) > 1 || len(value) > longestSearch || !utf8.ValidString(value) {
			return s, fmt.Errorf("parameter %q: want one value of at most %d bytes", key, longestSearch)
		}
		switch key {
		case "q":
			s.Search = value
		case "problems":
			s.Problems = value == "1"
		case "sort":
			if value != ByProblem && value != ByName && value != ByFlows {
				return s, fmt.Errorf("parameter sort: want %s, %s or %s", ByProblem, ByName, ByFlows)
			}
			s.Sort = value
		case "page":
			if s.Page, err = strconv.Atoi(value); err != nil || s.Page < 1 {
				return s, fmt.Errorf("parameter page: want a number from 1 on")
			}
		case "open":
			s.Open = value
		default:
			return s, fmt.Errorf("parameter %q is not known", key)
		}
	}
	return s, nil
}
