// SPDX-License-Identifier: Apache-2.0

// Command release makes what users install: the images of an installation in Kubernetes.
// Equal source and an equal Go give equal bytes. It needs Go, but neither Docker nor
// Podman.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `release build     make a release of a version, with all that users install, in a directory
release publish   push a release to its registry, and sign it
release images    build the images and push them to a registry of one's own
release docs      make the site of the documentation
release digests   write the digests of bpfman's images into the chart's values

release COMMAND -h tells the options of a command.
`

func main() {
	commands := map[string]func(ctx context.Context, args []string) error{
		"build": runBuild, "publish": runPublish, "images": runImages, "digests": runDigests, "docs": runDocs, "stages": runStages,
	}
	var run func(ctx context.Context, args []string) error
	if len(os.Args) > 1 {
		run = commands[os.Args[1]]
	}
	if run == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		stop()
		os.Exit(1)
	}
}
