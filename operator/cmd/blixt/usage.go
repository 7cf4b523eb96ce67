// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// exitUsage is the exit code of a command that was not called as it should be.
const exitUsage = 2

// usageError says how a command was called, and how it should be.
type usageError struct {
	command *cobra.Command
	err     error
}

func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Error() string {
	return fmt.Sprintf("%s\nUsage: %s\n%s --help tells more.", e.err, e.command.UseLine(), e.command.CommandPath())
}

// checkUsage has the command and all below return a usageError where they are not called as
// they should be, before they do anything.
func checkUsage(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &usageError{c, commandsFirst(c, err)} })
	if args := c.Args; c.Runnable() {
		c.Args = func(c *cobra.Command, given []string) error {
			var err error
			if args != nil {
				err = args(c, given)
			}
			if err = errors.Join(err, c.ValidateRequiredFlags(), c.ValidateFlagGroups()); err != nil {
				return &usageError{c, errors.New(plain(c, err.Error(), given))}
			}
			return nil
		}
	}
	for _, below := range c.Commands() {
		checkUsage(below)
	}
}

// commandsFirst adds which commands below have a flag, if the one that was called has not.
func commandsFirst(c *cobra.Command, err error) error {
	unknown, is := errors.AsType[*pflag.NotExistError](err)
	if !is {
		return err
	}
	var have []string
	for _, below := range c.Commands() {
		if below.Flags().Lookup(unknown.GetSpecifiedName()) != nil {
			have = append(have, below.CommandPath())
		}
	}
	if len(have) == 0 {
		return err
	}
	return fmt.Errorf("%w: a command comes first, and these have the flag: %s", err, phrase.Sample(have))
}

var (
	tooFewArgs  = regexp.MustCompile(`(?:accepts|requires)(?: at (?:most|least)| between)? .*arg\(s\), (?:only )?received (\d+)`)
	noSuchArg   = regexp.MustCompile(`(?:unknown command|invalid argument) "(.*)" for "[^"]*"`)
	oneOf       = regexp.MustCompile(`at least one of the flags in the group \[(.*)\] is required`)
	notTogether = regexp.MustCompile(`if any flags in the group \[(.*)\] are set none of the others can be; \[(.*)\] were all set`)
	allOf       = regexp.MustCompile(`if any flags in the group \[(.*)\] are set they must all be set; missing \[(.*)\]`)
	required    = regexp.MustCompile(`required flag\(s\) (.*) not set`)
)

// plain returns what cobra says in words of those who read it.
func plain(c *cobra.Command, text string, args []string) string {
	flags := func(list, last string) string {
		var names []string
		for _, name := range strings.Fields(strings.NewReplacer(",", " ", `"`, "").Replace(list)) {
			names = append(names, "--"+name)
		}
		return strings.ReplaceAll(phrase.Join(names), " and ", " "+last+" ")
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case tooFewArgs.MatchString(line) && len(args) == 0:
			line = "an argument is missing"
		case tooFewArgs.MatchString(line):
			line = fmt.Sprintf("%d arguments are not what it takes", len(args))
			if len(args) == 1 {
				line = fmt.Sprintf("the argument %q is not enough", args[0])
			}
		case noSuchArg.MatchString(line):
			line = fmt.Sprintf("it takes no argument %q", noSuchArg.FindStringSubmatch(line)[1])
			if len(c.ValidArgs) > 0 {
				line += ": choose one of " + strings.Join(c.ValidArgs, ", ")
			} else if f := c.Flags().Lookup("filename"); f != nil {
				line += ": files and directories follow -f"
			}
		case oneOf.MatchString(line):
			line = flags(oneOf.FindStringSubmatch(line)[1], "or") + " is needed"
		case notTogether.MatchString(line):
			line = flags(notTogether.FindStringSubmatch(line)[2], "and") + " exclude each other"
		case allOf.MatchString(line):
			found := allOf.FindStringSubmatch(line)
			line = flags(found[1], "and") + " belong together: " + flags(found[2], "and") + " is missing"
		case required.MatchString(line):
			line = flags(required.FindStringSubmatch(line)[1], "and") + " is needed"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}
