// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages of all commands into a directory",
		Long: `Writes a page for each command, such as blixt-status.1, in section 1. The same program
writes the same pages. Packages install them; by hand, man finds them in share/man/man1
beside the bin directory of the program.`,
		Example: `  blixt man /usr/local/share/man/man1 && man blixt-status`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for _, c := range documented(c.Root()) {
				path := filepath.Join(args[0], pageName(c)+".1")
				if err := os.WriteFile(path, []byte(manPage(c)), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// documented returns the command and all below that people are to know, parents first.
func documented(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			all = append(all, documented(below)...)
		}
	}
	return all
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage returns the page of a command, in the macros of man(7).
func manPage(c *cobra.Command) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH %s 1 "" "Blixt" "Blixt"`, quoted(strings.ToUpper(pageName(c))))
	line(".nh\n.ad l\n.SH NAME\n%s \\- %s", roff(pageName(c)), roff(lower(c.Short)))
	line(".SH SYNOPSIS\n.nf\n%s\n.fi", roff(c.UseLine()))
	line(".SH DESCRIPTION")
	for i, block := range blocks(description(c)) {
		if i > 0 {
			line(".PP")
		}
		if block.verbatim {
			line(".nf\n%s\n.fi", roff(block.text))
		} else {
			line("%s", roff(block.text))
		}
	}
	for _, section := range []struct {
		title string
		flags *pflag.FlagSet
	}{{"OPTIONS", c.NonInheritedFlags()}, {"OPTIONS OF ALL COMMANDS ABOVE", c.InheritedFlags()}} {
		if !section.flags.HasAvailableFlags() {
			continue
		}
		line(".SH %s", section.title)
		section.flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				line(".TP\n.B %s\n%s", roff(flagName(f)), roff(flagText(f)))
			}
		})
	}
	if c.Example != "" {
		line(".SH EXAMPLES\n.nf\n%s\n.fi", roff(c.Example))
	}
	var related []string
	if c.HasParent() {
		related = append(related, pageName(c.Parent()))
	}
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			related = append(related, pageName(below))
		}
	}
	if related != nil {
		line(".SH SEE ALSO")
		for i, name := range related {
			end := ","
			if i == len(related)-1 {
				end = ""
			}
			line(".BR %s (1)%s", roff(name), end)
		}
	}
	return b.String()
}

// description returns what a command does.
func description(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short + "."
}

// block is a paragraph, or lines that stay as they are.
type block struct {
	text     string
	verbatim bool
}

// blocks divides a text at empty lines, and where lines that are indented begin and end.
func blocks(text string) (all []block) {
	for _, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		for _, line := range strings.Split(paragraph, "\n") {
			verbatim := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
			if n := len(all); n > 0 && all[n-1].verbatim == verbatim && all[n-1].text != "" {
				all[n-1].text += "\n" + line
			} else {
				all = append(all, block{line, verbatim})
			}
		}
		all = append(all, block{}) // the end of a paragraph
	}
	kept := all[:0]
	for _, b := range all {
		if b.text != "" {
			kept = append(kept, b)
		}
	}
	return kept
}

// flagName returns a flag as it is written: -o, --output FORMAT.
func flagName(f *pflag.Flag) string {
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	kind, _ := pflag.UnquoteUsage(f)
	if kind != "" {
		name += " " + kind
	}
	return name
}

// flagText returns what a flag means, with its default, as --help has it. The name of this
// host is no default of others.
func flagText(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	hostname, _ := os.Hostname()
	switch value := f.DefValue; {
	case f.Name == "node-name" && value == hostname:
		return usage + " (default: the name of this host)"
	case value == "" || value == "false" || value == "[]" || value == "0" || value == "0s":
		return usage
	default:
		return fmt.Sprintf("%s (default %s)", usage, value)
	}
}

func lower(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// roff escapes a text for troff: a backslash, a hyphen that people are to copy, and what
// would begin a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\t", "    ").Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func quoted(text string) string { return `"` + text + `"` }

// pagesAbout are the documents that tell more of a command.
var pagesAbout = map[string]string{
	"blixt audit":    "[verify what runs](verify.md)",
	"blixt backends": "[look at backends](operations.md#look-at-backends)",
	"blixt bytecode": "[publish bytecode](../examples/bytecode/README.md)",
	"blixt check":    "[before files are served](check.md)",
	"blixt doctor":   "[what it checks](doctor.md), [troubleshooting](troubleshooting.md)",
	"blixt drain":    "[take a backend out of service](operations.md#take-a-backend-out-of-service)",
	"blixt drops":    "[reasons](reasons.md), [troubleshooting](troubleshooting.md)",
	"blixt flows":    "[observability](observability.md#flows)",
	"blixt init":     "[the short form](shortform.md)",
	"blixt page":     "[the page](page.md)",
	"blixt policy":   "[policies](policies.md)",
	"blixt run":      "[files](files.md), [the short form](shortform.md), [a host in operation](operations.md), [client addresses](client-address.md#hosts-without-kubernetes), [firewalls](firewall.md)",
	"blixt status":   "[troubleshooting](troubleshooting.md)",
	"blixt top":      "[observability](observability.md)",
	"blixt trace":    "[where a connection goes](observability.md#where-a-connection-goes)",
	"blixt undrain":  "[take a backend out of service](operations.md#take-a-backend-out-of-service)",
}

// commandsReference returns all commands as Markdown.
func commandsReference(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Commands\n\n<!-- Generated by go generate ./operator/cmd/blixt. -->\n\nWhat each command does, and its flags, as `--help` says it. `blixt man DIR` writes the same as man pages;\n"+
		"`blixt completion --help` tells how a shell completes commands, flags and their values.\n\n")
	for _, c := range documented(root) {
		fmt.Fprintf(&b, "- [`%s`](#%s): %s\n", c.CommandPath(), pageName(c), c.Short)
	}
	for _, c := range documented(root) {
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s\n```\n", c.CommandPath(), c.UseLine())
		for _, block := range blocks(description(c)) {
			if block.verbatim {
				fmt.Fprintf(&b, "\n```text\n%s\n```\n", block.text)
			} else {
				fmt.Fprintf(&b, "\n%s\n", markdown(block.text))
			}
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "\n<!-- not run: TestEveryCommandHasHelpWithExamples sees that commands and flags exist -->\n```sh\n%s\n```\n", dedent(c.Example))
		}
		if more := pagesAbout[c.CommandPath()]; more != "" {
			fmt.Fprintf(&b, "\nMore: %s.\n", more)
		}
		if f := c.NonInheritedFlags(); f.HasAvailableFlags() {
			fmt.Fprintf(&b, "\n| Flag | Meaning |\n|-|-|\n")
			f.VisitAll(func(f *pflag.Flag) {
				if !f.Hidden && f.Name != "help" {
					fmt.Fprintf(&b, "| <a id=\"%s--%s\"></a>`%s` | %s |\n", pageName(c), f.Name, strings.ReplaceAll(flagName(f), "|", `\|`), markdown(strings.ReplaceAll(flagText(f), "|", `\|`)))
				}
			})
		}
	}
	return b.String()
}

// dedent removes the indentation that all lines of an example have.
func dedent(text string) string { return strings.ReplaceAll(text[2:], "\n  ", "\n") }

// markdown escapes what Markdown would obey in prose.
func markdown(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;", ">", "&gt;").Replace(text)
}
