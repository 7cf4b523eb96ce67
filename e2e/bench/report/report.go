// SPDX-License-Identifier: Apache-2.0

// Package report has what a benchmark has measured: as JSON, as tables, as plots, and
// compared with what was measured before. Tables and plots are made of the JSON alone.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// Result is what a run has measured.
type Result struct {
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
}

// Machine is what it was measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	// Load is the load average when a run began.
	Load float64 `json:"load"`
}

// Parts of a run.
const (
	Live    = "live"
	TCP     = "tcp"
	Micro   = "micro"
	Publish = "publish"
	Memory  = "memory"
)

// Figure is one number that was measured several times.
type Figure struct {
	Part string `json:"part"`
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Best is the lowest of a cost, and the highest of a rate.
	Best   float64 `json:"best"`
	Median float64 `json:"median"`
	// Ratios are this figure divided by others, by their names.
	Ratios map[string]Ratio `json:"ratios,omitempty"`
}

// Ratio is a figure divided by another one that was measured in the same rounds.
type Ratio struct {
	// Best is that of the best ones, Median the median of the rounds' ratios.
	Best   float64 `json:"best"`
	Median float64 `json:"median"`
}

// Samples are a figure's rounds, while ratios are to be computed.
type Samples struct {
	Part, Name, Unit string
	// Rate says that more is better.
	Rate   bool
	Rounds []float64
	// To are the figures that this one is compared with.
	To []string
}

func best(s Samples) float64 {
	if s.Rate {
		return slices.Max(s.Rounds)
	}
	return slices.Min(s.Rounds)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// Figures computes figures of samples.
func Figures(samples []Samples) (figures []Figure) {
	of := map[string]Samples{}
	for _, s := range samples {
		of[s.Name+s.Unit] = s
	}
	for _, s := range samples {
		f := Figure{Part: s.Part, Name: s.Name, Unit: s.Unit, Best: round(best(s)), Median: round(median(s.Rounds))}
		for _, to := range s.To {
			o, is := of[to+s.Unit]
			if !is || o.Name == s.Name {
				continue
			}
			var ratios []float64
			for i := range min(len(s.Rounds), len(o.Rounds)) {
				ratios = append(ratios, s.Rounds[i]/o.Rounds[i])
			}
			if f.Ratios == nil {
				f.Ratios = map[string]Ratio{}
			}
			f.Ratios[to] = Ratio{Best: round(best(s) / best(o)), Median: round(median(ratios))}
		}
		figures = append(figures, f)
	}
	return figures
}

// Figure returns the figure of a name in a unit.
func (r *Result) Figure(part, name, unit string) (Figure, bool) {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Part == part && f.Name == name && f.Unit == unit })
	if i < 0 {
		return Figure{}, false
	}
	return r.Figures[i], true
}

// Add adds figures, which replace those of the same part.
func (r *Result) Add(part string, figures []Figure) {
	r.Figures = slices.DeleteFunc(r.Figures, func(f Figure) bool { return f.Part == part })
	r.Figures = append(r.Figures, figures...)
}

// Read reads the JSON of a run.
func Read(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// Write writes the JSON.
func (r *Result) Write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
