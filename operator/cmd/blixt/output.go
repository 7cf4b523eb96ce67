// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// wide is the format of commands with more columns than fit: addWide.
const wide = format("wide")

// format is the flag for the format of the output. An invalid one is rejected before
// the command does anything.
type format string

func (f *format) add(flags *pflag.FlagSet) {
	*f = "table"
	flags.VarP(f, "output", "o", "table, json or yaml")
}

// addWide adds the flag of a command that has a wide table, too.
func (f *format) addWide(flags *pflag.FlagSet) {
	*f = "table"
	flags.VarP(&wideFormat{f}, "output", "o", "table, wide, json or yaml")
}

type wideFormat struct{ *format }

func (f *wideFormat) Set(text string) error {
	if text == string(wide) {
		*f.format = wide
		return nil
	}
	if f.format.Set(text) != nil {
		return errors.New("want table, json or yaml, or wide")
	}
	return nil
}

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }
func (f *format) Set(text string) error {
	switch text {
	case "table", "json", "yaml":
		*f = format(text)
		return nil
	}
	return errors.New("want table, json or yaml")
}

// print writes v as JSON or YAML, or calls table.
func (f *format) print(w io.Writer, v any, table func(io.Writer)) error {
	switch *f {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		// The library parses the JSON as YAML, which permits fewer characters.
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if text, err = yaml.JSONToYAML([]byte(phrase.Printable(string(text)))); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	table(w)
	return nil
}
