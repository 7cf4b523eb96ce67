// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var (
	// named matches what documents have people type: blixt, and what follows on its line.
	named = regexp.MustCompile("(?m)(?:^|[`(|;&] ?|\\$ |# |sudo )blixt ([^ ](?:[^`|;&>)#\\n\\\\]|\\\\\\n)*)")
	// bare matches an inline flag without its command.
	bare     = regexp.MustCompile("`(--[a-z][a-z0-9-]*)[ =`]")
	isFlag   = regexp.MustCompile(`^\[?(--?[a-zA-Z][a-z0-9-]*)`)
	isName   = regexp.MustCompile(`^[a-z][a-z-]*$`)
	notTyped = regexp.MustCompile(`(?s)<!--.*?-->`)
)

// othersFlags are those of Helm, kubectl, apt, k3s, ipvsadm and others that documents name
// without their command.
var othersFlags = strings.Fields(`--allow-downgrades --devel --disable --duration --kube-proxy-arg --network --no-hooks --pe
	--reset-then-reuse-values --reuse-values --selector --server-side --set --start-daemon --tcp-services-configmap --tun-port
	--tun-type --udp-services-configmap`)

// Documents name commands and flags that exist.
func TestDocumentsNameWhatExists(t *testing.T) {
	root := command()
	flags := map[string]bool{"--help": true} // which cobra adds later
	every(root, func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	})
	found := 0
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		typed := notTyped.ReplaceAllString(string(text), "")
		for _, m := range named.FindAllStringSubmatch(typed, -1) {
			found++
			if err := exists(root, strings.Fields(strings.ReplaceAll(m[1], "\\\n", " "))); err != nil {
				t.Errorf("%s: blixt %s: %v", path, m[1], err)
			}
		}
		for _, m := range bare.FindAllStringSubmatch(typed, -1) {
			if !flags[m[1]] && !slices.Contains(othersFlags, m[1]) {
				t.Errorf("%s: no command has %s", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 300 {
		t.Errorf("found only %d commands in documents", found)
	}
}

// every calls f for a command and all below it.
func every(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		every(sub, f)
	}
}

// exists returns an error if words that follow blixt name a command or a flag that it has not.
func exists(root *cobra.Command, words []string) error {
	c := root
	for i := range words {
		words[i] = strings.TrimRight(words[i], ".,:")
	}
	for len(words) > 0 && isName.MatchString(words[0]) && c.HasSubCommands() {
		sub, _, err := c.Find(words[:1])
		if err != nil || sub == c {
			return fmt.Errorf("%s has no command %s", c.CommandPath(), words[0])
		}
		c, words = sub, words[1:]
	}
	c.InitDefaultHelpFlag()
	for _, w := range words {
		if w == "--" {
			return nil
		}
		m := isFlag.FindStringSubmatch(w)
		if m == nil {
			continue
		}
		if name, long := strings.CutPrefix(m[1], "--"); long && c.Flag(name) == nil {
			return fmt.Errorf("%s has no flag %s", c.CommandPath(), m[1])
		} else if !long && c.Flags().ShorthandLookup(m[1][1:2]) == nil && c.InheritedFlags().ShorthandLookup(m[1][1:2]) == nil {
			return fmt.Errorf("%s has no flag %s", c.CommandPath(), m[1])
		}
	}
	return nil
}

func TestDocumentsThatNameNothing(t *testing.T) {
	for _, line := range []string{"staus", "bytecode bild", "run --lisen :80", "status --listen :80", "run -z", "bytecode build --no-such"} {
		if exists(command(), strings.Fields(line)) == nil {
			t.Errorf("blixt %s is taken for a command", line)
		}
	}
}
