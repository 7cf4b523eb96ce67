// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/archive"
	"github.com/kubernetes-sigs/blixt/operator/release/packages"
)

// buildBinaries builds blixt for all platforms, and for this machine, as it writes pages.
func (s *stages) buildBinaries(ctx context.Context) error {
	for _, platform := range s.Platforms {
		b, err := s.buildBinary(ctx, strings.TrimPrefix(platform, "linux/"))
		if err != nil {
			return err
		}
		s.binaries = append(s.binaries, b)
		if b.Arch == runtime.GOARCH {
			s.host = b
		}
	}
	if s.host != nil {
		return nil
	}
	var err error
	s.host, err = s.buildBinary(ctx, runtime.GOARCH)
	return err
}

func (s *stages) buildBinary(ctx context.Context, arch string) (*release.Binary, error) {
	var settings []string
	if s.Docs {
		settings = append(settings, "DOCS=1")
	}
	b, err := release.Build(ctx, filepath.Join(s.Work, arch, "blixt"), arch, settings...)
	if err != nil {
		return nil, err
	}
	// Else images, packages and blixt version would say different things.
	if b.Version() != s.Version || b.Revision() != s.Revision || b.Info.GoVersion != s.GoVersion {
		return nil, fmt.Errorf("blixt for %s says that it is %s of commit %s by %s: want %s of %s by %s",
			arch, b.Version(), b.Revision(), b.Info.GoVersion, s.Version, s.Revision, s.GoVersion)
	}
	return b, nil
}

// shells are those for which there is completion.
var shells = []string{"bash", "zsh", "fish"}

// makeArchives makes an archive for each platform: the program, its man pages, and
// completion.
func (s *stages) makeArchives(ctx context.Context) error {
	pages, err := s.pages(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		pages = append(pages, archive.File{Name: name, Mode: 0o644, Content: content})
	}
	archives := make([][]byte, len(s.binaries))
	err = s.forBinaries(ctx, func(_ context.Context, i int, b *release.Binary) error {
		program, err := os.ReadFile(b.Path)
		if err != nil {
			return err
		}
		archives[i], err = archive.TarGz(s.Time, slices.Concat(pages, []archive.File{{Name: "blixt", Mode: 0o755, Content: program}})...)
		return err
	})
	if err != nil {
		return err
	}
	for i, b := range s.binaries {
		if err := s.write(fmt.Sprintf("blixt_%s_linux_%s.tar.gz", s.Number(), b.Arch), release.KindArchive, archives[i]); err != nil {
			return err
		}
	}
	return nil
}

// forBinaries does something with all binaries at once, as it takes a processor long.
func (s *stages) forBinaries(ctx context.Context, do func(context.Context, int, *release.Binary) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, b := range s.binaries {
		group.Go(func() error { return do(ctx, i, b) })
	}
	return group.Wait()
}

// pages returns the man pages in man, and completion in completions, as files and in Work.
func (s *stages) pages(ctx context.Context) (files []archive.File, err error) {
	man := filepath.Join(s.Work, "man")
	if out, err := exec.CommandContext(ctx, s.host.Path, "man", man).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("blixt man: %w: %s", err, out)
	}
	entries, err := os.ReadDir(man)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(man, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, archive.File{Name: "man/" + e.Name(), Mode: 0o644, Content: content})
	}
	completions := filepath.Join(s.Work, "completions")
	if err := os.MkdirAll(completions, 0o755); err != nil {
		return nil, err
	}
	for _, shell := range shells {
		var complaint bytes.Buffer
		c := exec.CommandContext(ctx, s.host.Path, "completion", shell)
		c.Stderr = &complaint
		content, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("blixt completion %s: %w: %s", shell, err, &complaint)
		}
		if err := os.WriteFile(filepath.Join(completions, "blixt."+shell), content, 0o644); err != nil {
			return nil, err
		}
		files = append(files, archive.File{Name: "completions/blixt." + shell, Mode: 0o644, Content: content})
	}
	return files, nil
}

// makePackages makes packages for distributions of each program.
func (s *stages) makePackages(ctx context.Context) error {
	if !s.Packages {
		return nil
	}
	files := make([][]string, len(s.binaries))
	err := s.forBinaries(ctx, func(ctx context.Context, i int, b *release.Binary) (err error) {
		files[i], err = packages.Build(ctx, packages.Options{
			Source: s.Source, Binary: b, Man: filepath.Join(s.Work, "man"), Completions: filepath.Join(s.Work, "completions"), Nfpm: s.Nfpm, Out: s.Out,
		})
		return err
	})
	if err != nil {
		return err
	}
	for _, file := range slices.Concat(files...) {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s.record(filepath.Base(file), release.KindPackage, content)
	}
	return nil
}
