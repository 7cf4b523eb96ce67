// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/shortform"
)

// fileFlags say what to serve: files, and the short form of it.
type fileFlags struct {
	shortFlags
	options *source.Options
}

func (x *fileFlags) add(f *pflag.FlagSet, o *source.Options) {
	x.options = o
	o.Stdin = os.Stdin
	f.StringArrayVarP(&o.Paths, "filename", "f", nil, "file or directory of YAML or JSON, or - for standard input, which is read once; may be repeated")
	f.BoolVarP(&o.Recursive, "recursive", "R", false, "read the subdirectories of directories, too, but never hidden ones")
	x.shortFlags.add(f)
}

// check adds the short form to the options, when all flags are read. It returns an error
// with a line for each mistake in it.
func (x *fileFlags) check() error {
	// A class of its own: files may have one that is called like Blixt, with options.
	const class = "blixt-listen"
	documents, err := shortform.Objects(x.shortFlags, class)
	for _, d := range documents {
		x.options.Given = append(x.options.Given, source.Given{Name: d.Place, Text: shortform.Class(class) + "---\n" + d.Text})
	}
	return err
}

// shortFlags are --listen and --backend. Their order counts, from one to the other.
type shortFlags []shortform.Flag

func (s *shortFlags) add(f *pflag.FlagSet) {
	f.Var(&shortFlag{s, shortform.Listen, "[address:]port[/protocol]"}, shortform.Listen,
		"what clients connect to, such as 192.0.2.10:80/tcp, [2001:db8::10]:53/udp, or :80 for every address of this host; the protocol is tcp if none is said; ,name=NAME names it, and allow=, deny=, max-new=, max-new-per-source=, max-connections=, max-connections-per-source=, affinity=, idle-timeout=, max-age= and health= make a policy: docs/shortform.md. May be repeated: those that stand together share the --backend flags that follow them")
	f.Var(&shortFlag{s, shortform.Backend, "address[:port]"}, shortform.Backend,
		"a server for the --listen flags before it, such as 10.0.0.1:8080; the port is that of the --listen if none is said; ,weight=N gives it N times as many new connections as one without, and with 0 none. May be repeated")
}

// shortFlag is one of them. Nothing is judged before all flags are known.
type shortFlag struct {
	all         *shortFlags
	name, value string
}

func (f *shortFlag) String() string { return "" }
func (f *shortFlag) Type() string   { return f.value }
func (f *shortFlag) Set(text string) error {
	*f.all = append(*f.all, shortform.Flag{Name: f.name, Value: text})
	return nil
}
