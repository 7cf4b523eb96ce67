// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// stages makes a release of the current directory, which is a clone with the version as
// its tag.
type stages struct {
	plan
	log io.Writer

	binaries []*release.Binary // one for each platform
	host     *release.Binary   // that which runs here
	made     release.Release
}

// runStages is what build runs in the clone.
func runStages(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one file with a plan: this is what build runs")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	s := &stages{log: os.Stderr}
	if err := json.Unmarshal(text, &s.plan); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if s.Dir, err = os.Getwd(); err != nil {
		return err
	}
	s.made.Source = s.Source
	return s.run(ctx)
}

func (s *stages) run(ctx context.Context) error {
	if s.GoVersion != runtime.Version() { // as archives are compressed by this program
		return fmt.Errorf("%s has compiled this program, and %s is to compile blixt: want one", runtime.Version(), s.GoVersion)
	}
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return err
	}
	for _, stage := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"documentation", s.makeDocs},
		{"binaries", s.buildBinaries},
		{"archives", s.makeArchives},
		{"packages", s.makePackages},
		{"images", s.makeImages},
		{"chart", s.makeChart},
		{"install.yaml", s.makeManifests},
		{"SBOMs", s.listContents},
		{"provenance", s.state},
		{"notes", s.explainRelease},
		{"checksums", s.list},
	} {
		if err := step(s.log, stage.what, func() error { return stage.do(ctx) }); err != nil {
			return err
		}
	}
	return s.summarize(os.Stdout)
}

// write adds a file to the release.
func (s *stages) write(name, kind string, content []byte) error {
	if err := os.WriteFile(filepath.Join(s.Out, name), content, 0o644); err != nil {
		return err
	}
	s.record(name, kind, content)
	return nil
}

// record lists a file that is there already.
func (s *stages) record(name, kind string, content []byte) {
	s.made.Files = append(s.made.Files, release.File{Name: name, Kind: kind, SHA256: hexSHA256(content), Size: int64(len(content))})
}

func hexSHA256(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
