// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// What differs from run to run.
var (
	logTime  = regexp.MustCompile(`(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d `) // documents leave it out
	date     = regexp.MustCompile(`\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z| UTC)?|\b\d\d:\d\d:\d\d(?:\.\d+)?\b`)
	duration = regexp.MustCompile(`\b(?:\d+(?:\.\d+)?(?:ns|µs|ms|s|m|h|d))+\b`)
	id       = regexp.MustCompile(`\b[0-9a-f]{8,}\b`)
	number   = regexp.MustCompile(`(^|[^\w.-])(?:(\d{1,3}(?:\.\d{1,3}){3})(?::(\d+))?|\d[\d,]*(?:\.\d+)?(?:/(tcp|udp)\b)?( ?[kMG]?B\b)?)`)
	space    = regexp.MustCompile(`[ \t]+`)
)

// shape makes equal what differs from run to run: times, ids, numbers, the width of
// columns. It keeps addresses, and ports below those that clients and translation get.
func shape(text string) string {
	text = logTime.ReplaceAllString(text, "")
	text = date.ReplaceAllString(text, "TIME")
	text = duration.ReplaceAllString(text, "T")
	text = id.ReplaceAllString(text, "ID")
	text = number.ReplaceAllStringFunc(text, func(m string) string {
		part := number.FindStringSubmatch(m)
		before, address, port, protocol, bytes := part[1], part[2], part[3], part[4], part[5]
		switch n, _ := strconv.Atoi(port); {
		case protocol != "":
			return m
		case address != "" && port != "" && n >= 10000:
			return before + address + ":N"
		case address != "":
			return m
		case bytes != "":
			return before + "N B"
		default:
			return before + "N"
		}
	})
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(space.ReplaceAllString(line, " ")))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// pattern matches what a document shows, in its shape: … or ... is any lines where it stands
// alone, and any words within a line.
func pattern(shown string) string {
	var b strings.Builder
	for line := range strings.Lines(shape(shown)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "…" || line == "..." {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
	}
	return b.String()
}

// compare returns an error that shows both, unless what was printed is what is shown.
func compare(shown, printed string) error {
	if regexp.MustCompile(`^` + pattern(shown) + `$`).MatchString(shape(printed)) {
		return nil
	}
	return fmt.Errorf("expected, with other numbers:\n%s\nseen:\n%s", indent(shown), indent(printed))
}

// compareParts is compare for what goes on printing: the lines that are shown come in this
// order, perhaps among others.
func compareParts(shown, printed string) error {
	lines := strings.SplitAfter(strings.TrimSuffix(shown, "\n"), "\n")
	if regexp.MustCompile(`^` + pattern("…\n"+strings.Join(lines, "…\n")+"\n…\n") + `$`).MatchString(shape(printed)) {
		return nil
	}
	return fmt.Errorf("expected, perhaps with lines between:\n%s\nseen:\n%s", indent(shown), indent(printed))
}

// indent sets a text off from the words around it.
func indent(text string) string {
	if strings.TrimSpace(text) == "" {
		return "    (nothing)"
	}
	return "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ")
}
