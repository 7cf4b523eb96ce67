// SPDX-License-Identifier: Apache-2.0

// Command dashboards writes the Grafana dashboards of the chart. They need no
// plugin, and Grafana 10 or newer.
package main

//go:generate go run . -out ../files/dashboards

import (
	"bytes"
	"encoding/json"
	"flag"
	"log"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	flag.Parse()
	for _, d := range []dashboard{overview(), gateway(), nodes()} {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(d.model()); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*out, d.name+".json"), text.Bytes(), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// dashboard is a page of rows.
type dashboard struct {
	name, title string // the uid is blixt- and the name
	description string
	variables   []variable
	rows        []row
}

// variable is a choice of the reader among the values of a label.
type variable struct{ name, label, query string }

type row struct {
	title  string
	panels []panel
}

// panel is a graph, if it is of no other kind.
type panel struct {
	title, description string
	kind               string // timeseries, stat, table
	unit               string
	width              int // of 24; 0: 8
	targets            []target
	stack              bool
	max                float64  // of the axis; 0: that of the data
	limits             []limit  // colours of a stat
	columns            []string // of a table: the labels that it shows
}

// limit is a value from which on a stat has another colour.
type limit struct {
	from   float64
	colour string
}

type target struct{ expr, legend string }

type object = map[string]any

// In expressions of panels, SELECT stands for what selects Blixt: the labels that
// scrapers give. It keeps out what pods of other namespaces export.
const selection = `cluster=~"$cluster",namespace=~"$namespace"`

var common = []variable{
	{"cluster", "Cluster", `label_values(blixt_ready, cluster)`},
	{"namespace", "Namespace of Blixt", `label_values(blixt_ready{cluster=~"$cluster"}, namespace)`},
}

func expression(text string) string { return strings.ReplaceAll(text, "SELECT", selection) }

// quantiles returns the targets of percentiles of a histogram, whether Prometheus
// keeps classic buckets or native ones.
func quantiles(metric, by, legend, selector string) (all []target) {
	for _, q := range []struct{ of, name string }{{"0.5", "median"}, {"0.99", "99 %"}} {
		grouping, classic := "", "le"
		if by != "" {
			grouping, classic = " by ("+by+")", by+", le"
		}
		all = append(all, target{
			"histogram_quantile(" + q.of + ", sum by (" + classic + ") (rate(" + metric + "_bucket{" + selector + "}[$__rate_interval])))" +
				" or histogram_quantile(" + q.of + ", sum" + grouping + " (rate(" + metric + "{" + selector + "}[$__rate_interval])))",
			strings.TrimSpace(legend + " " + q.name),
		})
	}
	return all
}

func (d dashboard) model() object {
	variables := []object{{
		"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
		"current": object{}, "options": []object{}, "regex": "", "refresh": 1,
	}}
	for _, v := range append(common, d.variables...) {
		variables = append(variables, object{
			"name": v.name, "label": v.label, "type": "query", "datasource": source(), "query": object{"query": expression(v.query), "refId": v.name},
			"definition": expression(v.query), "includeAll": true, "allValue": ".*", "multi": true, "sort": 1, "refresh": 2, "hide": 0,
			"current": object{"text": []string{"All"}, "value": []string{"$__all"}}, "options": []object{},
		})
	}
	var panels []object
	y, id := 0, 0
	next := func() int { id++; return id }
	for _, r := range d.rows {
		panels = append(panels, object{
			"id": next(), "type": "row", "title": r.title, "collapsed": false, "panels": []object{}, "gridPos": object{"x": 0, "y": y, "w": 24, "h": 1},
		})
		y++
		x, high := 0, 0
		for _, p := range r.panels {
			width, height := p.size()
			if x+width > 24 {
				x, y, high = 0, y+high, 0
			}
			m := p.model()
			m["id"], m["gridPos"] = next(), object{"x": x, "y": y, "w": width, "h": height}
			panels = append(panels, m)
			x, high = x+width, max(high, height)
		}
		y += high
	}
	return object{
		"uid": "blixt-" + d.name, "title": d.title, "description": d.description, "tags": []string{"blixt"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "timezone": "", "refresh": "30s",
		"time": object{"from": "now-3h", "to": "now"}, "templating": object{"list": variables}, "panels": panels, "annotations": object{"list": []object{}},
		"links": []object{{"type": "dashboards", "tags": []string{"blixt"}, "title": "Blixt", "asDropdown": true, "includeVars": true, "keepTime": true}},
	}
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

func (p panel) size() (width, height int) {
	width, height = 8, 8
	switch p.kind {
	case "stat":
		width, height = 4, 4
	case "table":
		width = 24
	}
	if p.width != 0 {
		width = p.width
	}
	return width, height
}

func (p panel) model() object {
	kind := p.kind
	if kind == "" {
		kind = "timeseries"
	}
	var targets []object
	for i, t := range p.targets {
		o := object{"refId": string(rune('A' + i)), "datasource": source(), "expr": expression(t.expr), "legendFormat": t.legend, "range": true}
		if kind != "timeseries" {
			o["range"], o["instant"] = false, true
		}
		if kind == "table" {
			o["format"] = "table"
		}
		targets = append(targets, o)
	}
	defaults := object{"unit": p.unit, "color": object{"mode": "palette-classic"}, "custom": object{}}
	options := object{}
	m := object{"type": kind, "title": p.title, "description": p.description, "datasource": source(), "targets": targets, "options": options,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}}
	switch kind {
	case "timeseries":
		custom := object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
		if p.stack {
			custom["stacking"], custom["fillOpacity"] = object{"mode": "normal", "group": "A"}, 40
		}
		defaults["min"], defaults["custom"] = 0, custom
		if p.max != 0 {
			defaults["max"] = p.max
		}
		options["legend"] = object{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}, "showLegend": true}
		options["tooltip"] = object{"mode": "multi", "sort": "desc"}
	case "stat":
		steps := []object{{"color": "text", "value": nil}}
		for _, l := range p.limits {
			steps = append(steps, object{"color": l.colour, "value": l.from})
		}
		defaults["color"], defaults["thresholds"] = object{"mode": "thresholds"}, object{"mode": "absolute", "steps": steps}
		options["reduceOptions"] = object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
		options["colorMode"], options["graphMode"] = "value", "none"
	case "table":
		p.table(m)
	}
	return m
}

// table joins the targets by their labels: one column for each label that is shown,
// and one for each target, of which legend is the heading.
func (p panel) table(m object) {
	names, order := object{}, object{}
	for i, c := range p.columns {
		order[c] = i
	}
	hidden := object{"Time": true}
	for i, t := range p.targets {
		value := "Value #" + string(rune('A'+i))
		if len(p.targets) == 1 {
			value = "Value"
		}
		names[value], order[value] = t.legend, len(p.columns)+i
		if t.legend == "" {
			hidden[value] = true
		}
	}
	m["transformations"] = []object{
		{"id": "merge", "options": object{}},
		{"id": "organize", "options": object{"excludeByName": hidden, "renameByName": names, "indexByName": order}},
	}
}
