// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// migrateSource is something that people have, and come from.
type migrateSource struct {
	name, short, long, example string
	// cluster is true if it is in a cluster: its Services exist, and so does the class.
	cluster bool
	read    func([]migrate.File) *migrate.Plan
	// directory puts files in the place of directories; nil: there are none.
	directory func(paths []string) ([]string, error)
	// gather adds the files that those which were given name; nil: there are none.
	gather func([]migrate.File) ([]migrate.File, error)
	// flags adds those that only this source has; nil: there are none.
	flags func(*pflag.FlagSet)
}

// migrateSources are all of them.
func migrateSources() []*migrateSource {
	return []*migrateSource{
		migrateIngressNginx(),
		migrateNginx(),
		migrateHAProxy(),
		migrateIPVS(),
		migrateKeepalived(),
		migrateServices(),
	}
}

// migrateOptions are the flags of migrate.
type migrateOptions struct {
	migrate.Options
	source  *migrateSource
	path    string
	force   bool
	diff    bool
	output  format
	in      io.Reader
	out, to io.Writer
}

func migrateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Turn the configuration of another load balancer into files for Blixt",
		Long: `Reads what another load balancer is configured to do, and writes objects of Gateway API
and BlixtPolicies that do the same. It changes nothing, and asks nobody.

What is not carried over as it was is told on standard error, a line for each, with file
and line: it is lost if it is not served or if clients or servers notice, changed if it is
served in another way, unneeded if Blixt has no need of it. The YAML has the same as
comments. Read every lost and changed before you move clients.

Exits with 0 if nothing is lost, with 1 if something is, and with 2 if a file cannot be
read, or is of another kind, or if the result cannot be written.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var names []string
	for _, s := range migrateSources() {
		c.AddCommand(s.command())
		names = append(names, s.name)
	}
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 { // help at standard output would look like what was migrated
			return fmt.Errorf("%q is read by no command: want one of %s", args[0], strings.Join(names, ", "))
		}
		return nil
	}
	return c
}

func (s *migrateSource) command() *cobra.Command {
	o := migrateOptions{source: s}
	c := &cobra.Command{
		Use:     s.name + " FILE...",
		Short:   s.short,
		Long:    s.long,
		Example: s.example,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			endAtOnce()
			o.in, o.out, o.to = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
			return o.run(args)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.path, "output-file", "o", "", "file to write; standard output if none is said")
	f.BoolVar(&o.force, "force", false, "write over the file if there is one")
	if !s.cluster {
		f.Var(&addressList{&o.Addresses}, "address", "address that serves what is served at all of the host's; may be repeated (default: all of the host's)")
	}
	f.VarP(&objectName{&o.Namespace, content.IsDNS1123Label}, "namespace", "n", "namespace of what has none of its own")
	o.Class = "blixt"
	f.Var(&objectName{&o.Class, content.IsDNS1123Subdomain}, "gateway-class", "GatewayClass of the Gateways")
	f.BoolVar(&o.diff, "diff", false, "print what is served now beside what Blixt would serve, with a ! where they differ, instead of the YAML")
	o.output = "yaml"
	f.Var(&yamlOrJSON{&o.output}, "output", "yaml, or json with objects and notes")
	if s.flags != nil {
		s.flags(f)
	}
	return c
}

// objectName is a flag for the name of an object that an API server takes; "": none.
type objectName struct {
	name  *string
	wrong func(string) []string
}

func (n *objectName) String() string {
	if n.name == nil { // pflag asks for the zero value
		return ""
	}
	return *n.name
}

func (n *objectName) Type() string { return "string" }

func (n *objectName) Set(text string) error {
	if wrong := n.wrong(text); text != "" && len(wrong) > 0 {
		return errors.New(wrong[0])
	}
	*n.name = text
	return nil
}

// yamlOrJSON is the format of commands that write no table.
type yamlOrJSON struct{ *format }

func (f *yamlOrJSON) Set(text string) error {
	if text != "yaml" && text != "json" {
		return errors.New("want yaml or json")
	}
	*f.format = format(text)
	return nil
}

func (f *yamlOrJSON) Type() string { return "yaml|json" }

// migrated is what blixt migrate prints as JSON.
type migrated struct {
	Objects []migrate.KubeObject `json:"objects"`
	Notes   []migrate.Note       `json:"notes"`
	// Diff is null without --diff.
	Diff []migrate.Row `json:"diff"`
}

// run reads the files, writes what they become, and says what is not carried over.
func (o *migrateOptions) run(paths []string) error {
	files, err := o.files(paths)
	if err == nil {
		err = o.keep(files)
	}
	if err != nil {
		return &exitError{exitUnknown, err}
	}
	o.WriteClass = !o.source.cluster
	plan := o.source.read(files)
	objects, notes := plan.Objects(o.Options)
	if plan.Broken {
		o.say(notes)
		return &exitError{exitUnknown, errSaid}
	}
	if err := o.write(plan, objects, notes); err != nil {
		return &exitError{exitUnknown, err}
	}
	if migrate.Loses(notes) {
		return &exitError{exitWrong, errSaid}
	}
	return nil
}

// files reads the files; - is standard input. It returns an error for a file of another kind.
func (o *migrateOptions) files(paths []string) (all []migrate.File, err error) {
	if o.source.directory != nil {
		if paths, err = o.source.directory(paths); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		f := migrate.File{Name: path}
		if path == "-" {
			f.Name = "stdin"
			f.Text, err = readLimited(o.in)
		} else {
			f.Text, err = readRegular(path)
		}
		if err != nil {
			return nil, forRoot(err)
		}
		if err := o.source.check(f); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	if o.source.gather != nil {
		if all, err = o.source.gather(all); err != nil {
			return nil, err
		}
	}
	if o.source.cluster { // YAML may be UTF-16
		return all, nil
	}
	for _, f := range all {
		if why := illegible(f.Text); why != "" {
			return nil, fmt.Errorf("%s: %s", f.Name, why)
		}
	}
	return all, nil
}

// illegible returns why a text has no lines to read, and what to do, or "".
func illegible(text []byte) string {
	const remedy = "the file is %s, as Windows writes it: convert it by iconv -f %s -t UTF-8, and read that"
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return fmt.Sprintf(remedy, "UTF-16", "UTF-16")
	}
	// Without a mark at its beginning: every other byte of what is written in English is zero.
	var zeros [2]int
	head := text[:min(len(text), 1000)]
	for i, c := range head {
		if c == 0 {
			zeros[i%2]++
		}
	}
	for i, name := range []string{"UTF-16BE", "UTF-16LE"} {
		if zeros[i] > len(head)/4 && zeros[1-i] == 0 {
			return fmt.Sprintf(remedy, name, name)
		}
	}
	if bytes.ContainsRune(bytes.TrimRight(text, "\r"), '\r') && !bytes.ContainsRune(text, '\n') {
		return `its lines end with CR alone, as of an old Macintosh: convert it by tr '\r' '\n', and read that`
	}
	return ""
}

// keep returns an error if the result would replace one of the files, or standard input, by
// whatever path.
func (o *migrateOptions) keep(files []migrate.File) error {
	to, err := os.Stat(o.path)
	if err != nil || !to.Mode().IsRegular() {
		return nil // writing says what is wrong
	}
	for _, f := range files {
		if from, err := os.Stat(f.Name); err == nil && os.SameFile(from, to) {
			return fmt.Errorf("%s is the file %s that is read, and stays as it is: name another one to write", o.path, f.Name)
		}
	}
	if in, is := o.in.(*os.File); is {
		if from, err := in.Stat(); err == nil && os.SameFile(from, to) {
			return fmt.Errorf("%s is read at standard input, and stays as it is: name another file to write", o.path)
		}
	}
	return nil
}

// check returns an error for a file that another command reads.
func (s *migrateSource) check(f migrate.File) error {
	if len(bytes.TrimSpace(f.Text)) == 0 {
		return fmt.Errorf("%s: the file is empty", f.Name)
	}
	other := migrate.Guess(f.Text)
	if migrate.Looks(f.Text, s.name) || other == "" {
		return nil
	}
	return fmt.Errorf("%s is no file that blixt migrate %s reads, but looks like one of another kind: try blixt migrate %s %s", f.Name, s.name, other, f.Name)
}

// maxMigrated is how large a file may be.
const maxMigrated = 256 << 20

// readRegular reads a file that is one, of a size that a configuration may have.
func readRegular(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name its files", path)
	}
	text, err := readLimited(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return text, nil
}

// readLimited leaves away the byte order mark with which editors of Windows begin a file.
func readLimited(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxMigrated+1))
	if err == nil && len(text) > maxMigrated {
		err = fmt.Errorf("it has more than %d MiB", maxMigrated>>20)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), err
}

// write writes what was asked for, and tells the notes.
func (o *migrateOptions) write(plan *migrate.Plan, objects []migrate.Object, notes []migrate.Note) error {
	text, err := migrate.YAML(objects, notes)
	if err != nil {
		return err
	}
	r := migrated{Objects: []migrate.KubeObject{}, Notes: append([]migrate.Note{}, notes...)}
	if o.diff {
		if r.Diff, err = migrate.Compare(plan, o.Options, text); err != nil {
			return err
		}
	}
	text = fmt.Sprintf("# Written by blixt migrate %s.\n", o.source.name) + text
	toFile := o.path != "" && o.path != "-"
	if toFile {
		if err := writeNew(o.path, text, o.force); err != nil {
			return err
		}
	}
	switch {
	case o.output == "json":
		for _, x := range objects {
			r.Objects = append(r.Objects, x.Value)
		}
		return o.output.print(o.out, r, nil)
	case o.diff:
		var table bytes.Buffer
		printRows(&table, r.Diff)
		if _, err := table.WriteTo(o.out); err != nil {
			return err
		}
	case !toFile:
		if _, err := io.WriteString(o.out, text); err != nil {
			return err
		}
	}
	o.say(notes)
	return nil
}

// say tells the notes, a line for each.
func (o *migrateOptions) say(notes []migrate.Note) {
	var lines strings.Builder
	for _, n := range notes {
		lines.WriteString(n.String() + "\n")
	}
	_, _ = io.WriteString(o.to, lines.String())
}

// addressList is a flag that may be repeated: addresses.
type addressList struct{ all *[]netip.Addr }

func (l *addressList) String() string { return "" }
func (l *addressList) Type() string   { return "address" }
func (l *addressList) Set(text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return errors.New("want an IP address, such as 192.0.2.10")
	}
	if why := gateway.InvalidAddress(addr); why != "" {
		return errors.New(why)
	}
	*l.all = append(*l.all, addr)
	return nil
}

// printRows prints what is served beside what would be: a frontend, and below it its servers.
func printRows(out io.Writer, rows []migrate.Row) {
	w := printer{out}
	if len(rows) == 0 {
		w.printf("Nothing is served.\n")
		return
	}
	t, flush := newTable(w)
	defer flush()
	t.printf("  FRONTEND\tNOW\tWITH BLIXT\n")
	for _, r := range rows {
		mark := "  "
		if !r.Same {
			mark = "! "
		}
		was, will := sideLines(r.Was, r.Will), sideLines(r.Will, r.Was)
		frontend := r.Frontend
		for i := range max(len(was), len(will)) {
			t.printf("%s%s\t%s", mark, frontend, lineAt(was, i))
			if i < len(will) {
				t.printf("\t%s", will[i])
			}
			t.printf("\n")
			mark, frontend = "  ", ""
		}
	}
}

func lineAt(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// sideLines returns how one answers whom, and who. The other side has the same lines.
func sideLines(s, other *migrate.Side) []string {
	if s == nil {
		return []string{"not served"}
	}
	head := s.How
	if s.Last > 0 {
		head = strings.TrimPrefix(fmt.Sprintf("%s, ports to %d", head, s.Last), ", ")
	}
	lines := []string{head}
	if s.Sources != nil || other != nil && other.Sources != nil {
		lines = append(lines, sourcesLine(s.Sources))
	}
	if s.Idle != "" && (other == nil || other.Idle != "") {
		lines = append(lines, "idle "+s.Idle)
	}
	for _, x := range s.Servers {
		line := fmt.Sprintf("%s  %.4g%%", x.Address, x.Share)
		switch {
		case x.Missing:
			line = x.Address + "  ?"
		case x.Backup:
			line += " stands by"
			if x.Turn > 0 {
				line += fmt.Sprintf(", turn %d", x.Turn+1)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// sourcesLine returns who may connect.
func sourcesLine(s *migrate.Sources) string {
	if s == nil {
		return "from all"
	}
	var parts []string
	if len(s.Allow) > 0 {
		parts = append(parts, "from "+someNetworks(s.Allow))
	}
	if len(s.Deny) > 0 {
		parts = append(parts, "not from "+someNetworks(s.Deny))
	}
	return strings.Join(parts, ", ")
}

// someNetworks returns the first ones: --output json has all.
func someNetworks(all []netip.Prefix) string {
	const most = 3
	var names []string
	for _, n := range all[:min(len(all), most)] {
		names = append(names, n.String())
	}
	text := strings.Join(names, " ")
	if more := len(all) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
