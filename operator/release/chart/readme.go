// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

const readmeFile = "README.md"

var (
	example   = regexp.MustCompile(`([^0-9.])1\.2\.3\b`) // the version in commands
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	published = regexp.MustCompile(`oci://(\S+)/charts/blixt\b`)
)

// writeReadme writes the page that people read where there is no source: its links lead to
// the source of this version, its commands name this registry and version, and its table
// shows the values of this release.
func writeReadme(f files, o Options) error {
	m, err := readMetadata(f)
	if err != nil {
		return err
	}
	page := string(f[readmeFile])
	for key, value := range o.images() {
		row, with := "| "+key+" | string | `\"\"` |", "| "+key+" | string | `\""+value+"\"` |"
		if strings.Count(page, row) != 1 {
			return fmt.Errorf("%s has no row %q: run go generate ./charts/blixt", readmeFile, row)
		}
		page = strings.Replace(page, row, with, 1)
	}
	found := published.FindStringSubmatch(page)
	if found == nil {
		return fmt.Errorf("%s does not say from where to install: want oci://…/charts/blixt in it", readmeFile)
	}
	page = strings.ReplaceAll(page, found[1], o.registry())
	page = example.ReplaceAllString(page, "${1}"+o.number())
	page = link.ReplaceAllStringFunc(page, func(l string) string {
		target := link.FindStringSubmatch(l)[1]
		if strings.Contains(target, ":") || target[0] == '#' {
			return l
		}
		target, anchor, hasAnchor := strings.Cut(target, "#")
		if hasAnchor {
			anchor = "#" + anchor
		}
		return "](" + m.Home + "/blob/" + o.Version + "/" + path.Join("charts/blixt", target) + anchor + ")"
	})
	f[readmeFile] = []byte(page)
	return nil
}
