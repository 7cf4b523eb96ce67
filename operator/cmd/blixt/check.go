// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/diff"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// What blixt check exits with.
const (
	exitWrong   = 1
	exitUnknown = 2
	exitDiffers = 3
)

// checkOptions are the flags of check.
type checkOptions struct {
	standalone.PreviewOptions
	files         fileFlags
	hostAddresses prefixes
	quiet, strict bool
	diff          bool
	name          string
	here          hostFlags
	output        format
}

func checkCommand() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check {-f DIR|FILE|- | --listen ADDRESS:PORT --backend ADDRESS:PORT | --diff}",
		Short: "Tell what is wrong with files, and what blixt run would serve",
		Long: `Reads files as blixt run does, and reports everything that is wrong with them: what
is no YAML, fields that no object has, values that are not allowed, names that lead
nowhere, ports that two want. Each problem is a line, file:line: object: message, with
"warning: " after the place if it takes effect nevertheless, such as a route of which
every backend has weight 0. Then follows what would be served. It needs no root, and
changes nothing.

Files mean different things on different hosts: an address may be one of the host, and
an endpoint at such an address is local. It is this host unless --host-address names
the addresses of another, with their networks.

With --diff, it tells what would change if the load balancer that runs here had these
files instead of its own; without -f, what its own files would change. It takes into
account what the load balancer remembers: what was good last goes on where the files
have a mistake, and who serves an address and port, or a listener, keeps it. A + is what
comes, a - what goes. Flows to backends that go are reset. That needs root.

Exits with 0 if nothing is wrong, with 1 if something is, and with 2 if that cannot be
told: there is no such file, or it cannot be read. Warnings count with --strict. With
--diff it exits with 3 if nothing is wrong and something would change.`,
		Example: `  blixt check -f /etc/blixt
  blixt check -f . --quiet --strict --host-address 192.0.2.10/24
  blixt check -f new --diff
  kubectl get gateways,tcproutes,services,endpointslices -o yaml | blixt check -f -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			endAtOnce()
			if err := o.files.check(); err != nil {
				return err
			}
			return o.run(c.OutOrStdout())
		},
	}
	hostname, _ := os.Hostname()
	f := c.Flags()
	o.files.add(f, &o.Files)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print problems alone: nothing if all is well")
	f.BoolVar(&o.strict, "strict", false, "count warnings, and objects that are ignored, as problems")
	f.Var(&o.hostAddresses, "host-address", "address of the host that is to serve the files, with the length of its network, such as 192.0.2.10/24; may be repeated (default: those of this host)")
	f.StringVar(&o.NodeName, "node-name", hostname, "nodeName of the endpoints on that host")
	f.BoolVar(&o.diff, "diff", false, "tell what would change of what a load balancer of this host serves")
	f.StringVar(&o.name, "name", loader.DefaultName, "name of the load balancer, with --diff")
	o.here.add(f)
	o.output.add(f)
	for _, other := range []string{"host-address", "node-name"} {
		c.MarkFlagsMutuallyExclusive("diff", other)
	}
	c.MarkFlagsOneRequired("filename", "listen", "backend", "diff")
	return c
}

// checked is what blixt check shows.
type checked struct {
	Problems []problem `json:"problems"`
	// Frontends are nil if nothing would be served as no file is valid.
	Frontends []diff.Frontend `json:"frontends"`
	// Policies are what BlixtPolicies make of listeners, as far as they concern any.
	Policies []gateway.Explained `json:"policies,omitempty"`
	// PolicyChanges are what would change of that, with --diff.
	PolicyChanges []policyChange `json:"policyChanges,omitempty"`
	// Diff is nil without --diff.
	Diff *diff.Diff `json:"diff,omitempty"`
	// code is the exit code.
	code int
}

// problem is something that is wrong, or worth a look.
type problem struct {
	Severity string `json:"severity"` // error, warning or note
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Object   string `json:"object,omitempty"`
	Message  string `json:"message"`
}

func (o *checkOptions) run(out io.Writer) error {
	r, err := o.check()
	if err != nil {
		return &exitError{exitUnknown, err}
	}
	table := r.table
	if o.quiet {
		table = r.lines
	}
	if err := o.output.print(out, r, table); err != nil {
		return err
	}
	if r.code != 0 {
		return &exitError{r.code, errSaid}
	}
	return nil
}

func (o *checkOptions) check() (*checked, error) {
	o.Files.FullNames = true
	if len(o.hostAddresses) > 0 {
		o.Network = hostnet.Assume(o.hostAddresses)
	}
	var served *status
	if o.diff {
		var err error
		if served, err = o.running(); err != nil {
			return nil, err
		}
	}
	p, err := standalone.NewPreview(o.PreviewOptions)
	if err != nil {
		return nil, forRoot(err)
	}
	r := &checked{Problems: []problem{}}
	for _, remark := range p.Remarks {
		r.add(remark, o.strict)
	}
	if p.State == nil {
		return r, nil
	}
	r.Frontends, r.Policies = diff.Expect(p.State), restricted(p)
	if o.diff {
		d := diff.New(&served.Status, p.State)
		if r.PolicyChanges, err = o.policyChanges(p); err != nil {
			return nil, forRoot(err)
		}
		if r.Diff = &d; r.code == 0 && !r.same() {
			r.code = exitDiffers
		}
	}
	return r, nil
}

// running returns what the load balancer serves, and has the files read as it reads its own.
func (o *checkOptions) running() (*status, error) {
	says, err := standalone.ReadProcessStatus(o.here.RunDir, o.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notRunning(o.name, o.here.Names())
	}
	if err != nil {
		return nil, forRoot(err)
	}
	served, err := readStatus(o.here.BPFFS, o.here.RunDir, o.name)
	if err != nil {
		return nil, forRoot(err)
	}
	if o.Drained, err = standalone.ReadDrained(standalone.DrainedFile(o.here.RunDir, o.name)); err != nil {
		return nil, forRoot(err)
	}
	o.Like = &says
	o.Capacity = lb.Capacity{Addresses: served.Tables["addresses"].Size, Frontends: served.Tables["frontends"].Size}
	if len(o.Files.Paths)+len(o.Files.Given) == 0 && slices.Contains(says.Files, source.Stdin) {
		return nil, fmt.Errorf("load balancer %s has read standard input, which nobody can read again: give the files with -f", o.name)
	}
	if len(o.Files.Paths)+len(o.Files.Given) == 0 {
		o.Files.Paths, o.Files.Recursive, o.Files.Given = says.Files, says.Recursive, says.Given
	}
	if len(o.Files.Paths) != len(says.Files) && len(says.Files) > 0 {
		return nil, fmt.Errorf("load balancer %s reads %s: give as many files and directories with -f as that, in the same order, each to stand for one of them", o.name, strings.Join(says.Files, ", "))
	}
	return served, nil
}

// notRunning says that a load balancer is not there, and which are.
func notRunning(name string, others []string) error {
	if len(others) == 0 {
		return fmt.Errorf("load balancer %s does not run on this host, nor does another one: start it with blixt run, or name its --run-dir", name)
	}
	return fmt.Errorf("load balancer %s does not run on this host: choose another with --name: %s", name, strings.Join(others, ", "))
}

// forRoot adds a remedy to an error about a missing right.
func forRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w: run as root", err)
	}
	return err
}

// add adds a problem, and what it means for the exit code.
func (r *checked) add(remark standalone.Remark, strict bool) {
	severity := "note"
	switch {
	case remark.Level >= slog.LevelError:
		severity = "error"
	case remark.Level >= slog.LevelWarn:
		severity = "warning"
	}
	r.Problems = append(r.Problems, problem{severity, remark.File, remark.Line, remark.Object, remark.Message})
	switch {
	case severity != "error" && !strict:
	case !remark.Unread:
		r.code = exitWrong
	case r.code == 0:
		r.code = exitUnknown
	}
}

// same reports whether nothing would change.
func (r *checked) same() bool { return r.Diff.Empty() && len(r.PolicyChanges) == 0 }

// String returns file:line: object: message.
func (p problem) String() string {
	var b strings.Builder
	if b.WriteString(p.File); p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Severity != "error" {
		b.WriteString(p.Severity + ": ")
	}
	if p.Object != "" {
		b.WriteString(p.Object + ": ")
	}
	return b.String() + p.Message
}

// lines prints the problems, without notes.
func (r *checked) lines(out io.Writer) {
	w := printer{out}
	for _, p := range r.Problems {
		if p.Severity != "note" {
			w.printf("%s\n", p)
		}
	}
	if r.Diff != nil {
		printDiff(w, r.Diff)
		printPolicyChanges(w, r.PolicyChanges)
	}
}

func (r *checked) table(out io.Writer) {
	w := printer{out}
	for _, p := range r.Problems {
		w.printf("%s\n", p)
	}
	if len(r.Problems) > 0 {
		w.printf("\n")
	}
	switch {
	case r.Diff != nil && r.same():
		w.printf("Nothing would change.\n")
	case r.Diff != nil:
		printDiff(w, r.Diff)
		printPolicyChanges(w, r.PolicyChanges)
	case r.Frontends == nil:
		w.printf("Nothing would be served: no file is valid.\n")
	case len(r.Frontends) == 0:
		w.printf("Nothing would be served.\n")
	default:
		printExpected(w, r.Frontends)
		printPolicies(w, r.Policies)
	}
}

// printExpected prints what would be served, as blixt status prints what is.
func printExpected(w printer, all []diff.Frontend) {
	t, flush := newTable(w)
	defer flush()
	t.printf("FRONTEND\tROUTE\tBACKEND\tSTATE\tWEIGHT\tSHARE\n")
	for _, f := range all {
		frontend, route := f.Frontend, f.Will.Route
		if route == "" {
			route = "-"
		}
		for _, b := range f.Backends {
			t.printf("%s\t%s\t%s\t%s\t%s\t%s\n", frontend, route, b.Address, b.Will.Where(), fmt.Sprintf("%.4g", b.Will.Weight), percent(b.Will.Share))
			frontend, route = "", ""
		}
		if f.Will.RejectShare > 0 {
			t.printf("%s\t%s\t-\trefused\t\t%s\n", frontend, route, percent(f.Will.RejectShare))
		}
	}
}

// printDiff prints what would change: who comes after a +, who goes after a -.
func printDiff(w printer, d *diff.Diff) {
	for _, f := range d.Frontends {
		switch f.Change {
		case diff.Added:
			w.printf("+ %s%s\n", f.Frontend, f.Will)
		case diff.Removed:
			w.printf("- %s%s\n", f.Frontend, f.Was)
		default:
			w.printf("  %s%s\n", f.Frontend, f.Will)
			if f.Was.Route != f.Will.Route || f.Was.Gateway != f.Will.Gateway || f.Was.IdleTimeout != f.Will.IdleTimeout {
				w.printf("-     was%s, idle timeout %s\n+     will be%s, idle timeout %s\n", f.Was, f.Was.IdleTimeout, f.Will, f.Will.IdleTimeout)
			}
		}
		for _, b := range f.Backends {
			printBackend(w, b)
		}
	}
	if !d.Empty() {
		w.printf("\nFlows: %d would be reset, %d kept.\n", d.Reset, d.Kept)
	}
}

func printBackend(w printer, b diff.Backend) {
	fate := ""
	switch {
	case b.Flows == 0:
	case b.Reset:
		fate = fmt.Sprintf(": %d flows are reset", b.Flows)
	default:
		fate = fmt.Sprintf(": keeps %d flows", b.Flows)
	}
	switch b.Change {
	case diff.Added:
		w.printf("+     %s %s\n", b.Address, b.Will)
	case diff.Removed:
		w.printf("-     %s %s%s\n", b.Address, b.Was, fate)
	case diff.Changed:
		w.printf("-     %s %s%s\n+     %s %s\n", b.Address, b.Was, fate, b.Address, b.Will)
	default:
		w.printf("      %s %s\n", b.Address, b.Will)
	}
}

// prefixes is a flag that may be repeated: addresses with their networks.
type prefixes []netip.Prefix

func (p *prefixes) String() string { return "" }
func (p *prefixes) Type() string   { return "address/length" }
func (p *prefixes) Set(text string) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return errors.New("want an address with the length of its network, such as 192.0.2.10/24")
	}
	*p = append(*p, prefix)
	return nil
}
