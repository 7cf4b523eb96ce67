// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRatiosAreOfTheBestOnesAndOfRounds(t *testing.T) {
	got := Figures([]Samples{
		{Part: Live, Name: "forward", Unit: "ns/packet", Rounds: []float64{100, 200, 120}},
		{Part: Live, Name: "local", Unit: "ns/packet", Rounds: []float64{150, 220, 240}, To: []string{"forward", "local", "none"}},
		{Part: TCP, Name: "rate", Unit: "1/s", Rate: true, Rounds: []float64{10, 30}},
	})
	want := []Figure{
		{Part: Live, Name: "forward", Unit: "ns/packet", Best: 100, Median: 120},
		{Part: Live, Name: "local", Unit: "ns/packet", Best: 150, Median: 220, Ratios: map[string]Ratio{"forward": {Best: 1.5, Median: 1.5}}},
		{Part: TCP, Name: "rate", Unit: "1/s", Best: 30, Median: 20},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGoals(t *testing.T) {
	live := func(name, to string, x float64) Figure {
		return Figure{Part: Live, Name: name, Unit: perPacket, Best: 1, Ratios: map[string]Ratio{to: {Best: x}}}
	}
	r := &Result{Figures: []Figure{
		live("empty", "forward", 1.05), live("miss", "forward", 1.12), live("local", "nft", 0.7), live("remote", "nft", 0.66),
		{Part: TCP, Name: "local, bulk", Unit: "MB/s", Ratios: map[string]Ratio{"forward, bulk": {Best: 0.98}}},
	}}
	var got []string
	for _, o := range r.Outcomes() {
		got = append(got, o.What+": "+o.Reached)
	}
	want := []string{"what is not Blixt's, to forwarding: must", "local, to nftables: aim", "remote, to nftables: no", "bulk TCP, local, to forwarding: must"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCompareNamesWhatChanged(t *testing.T) {
	before := &Result{Figures: []Figure{{Part: Live, Name: "local", Unit: perPacket, Best: 200, Ratios: map[string]Ratio{"nft": {Best: 1.2}}}}}
	now := &Result{Figures: []Figure{{Part: Live, Name: "local", Unit: perPacket, Best: 100, Ratios: map[string]Ratio{"nft": {Best: 0.6}}}, {Part: Live, Name: "new", Unit: perPacket, Best: 1}}}
	var out bytes.Buffer
	if err := now.Compare(&out, before); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "-50 %") != 2 || strings.Contains(got, "new") {
		t.Error(got)
	}
}

// TestDocumentIsMadeOfTheFigures checks that what lies in docs is what its figures give.
func TestDocumentIsMadeOfTheFigures(t *testing.T) {
	const docs = "../../../docs"
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "performance"), os.DirFS(filepath.Join(docs, "performance"))); err != nil {
		t.Fatal(err)
	}
	if err := Document(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "performance", "*.svg"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, filepath.Join(dir, documentFile)) {
		made, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		if committed, err := os.ReadFile(filepath.Join(docs, name)); err != nil || string(committed) != string(made) {
			t.Errorf("docs/%s is not made of its figures (%v): run go generate ./e2e/bench", name, err)
		}
		if filepath.Ext(name) == ".svg" {
			wellFormed(t, name, made)
		}
	}
}

func wellFormed(t *testing.T, name string, text []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}
