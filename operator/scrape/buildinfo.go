// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// BuildInfo returns a collector of what this process is. Layout is that of the maps that
// it knows.
func BuildInfo(layout int) prometheus.Collector {
	version, revision := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "blixt_build_info", Help: "1; what runs: the version and the revision that it was built from, and the layout of maps that it knows.",
		ConstLabels: prometheus.Labels{
			"version": cmp.Or(version, "(devel)"), "revision": cmp.Or(revision, "unknown"), "goversion": runtime.Version(), "layout": strconv.Itoa(layout),
		},
	}, func() float64 { return 1 })
}
