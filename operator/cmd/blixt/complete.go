// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// completionLimit is how long a shell waits for names that a cluster knows.
const completionLimit = 2 * time.Second

// values are what a shell offers for a flag of a command, or for its next argument.
type values func(c *cobra.Command) []string

func among(all ...string) values { return func(*cobra.Command) []string { return all } }

// flagValues are those of flags that have the same meaning in all commands. Flags that are
// not here, and whose type does not list its values, have no values that anybody could know,
// or name a file.
var flagValues = map[string]values{
	"log-level":  among("debug", "info", "warn", "error"),
	"log-format": among("text", "json"),
	"loader":     among("builtin", "bpfman"),
	"protocol":   among("tcp", "udp", "icmp", "icmpv6"),
	"event":      among("open", "end", "rejected", "dropped"),
	"arch":       among("amd64", "arm64"),
	"reason":     dropReasons,
	"explain":    doctorChecks,
	"name":       loadBalancers,
	"node":       nodes,
	"context":    contexts,
	"gateway":    servedNames(func(f *lb.Frontend) []string { return []string{f.Gateway} }),
	"route":      servedNames(func(f *lb.Frontend) []string { return []string{f.Route} }),
	"service": servedNames(func(f *lb.Frontend) (all []string) {
		for _, ref := range f.Refs {
			all = append(all, ref.Service)
		}
		return all
	}),
	"server":  servedNames(func(f *lb.Frontend) []string { return []string{netip.AddrPortFrom(f.Addr, f.Port).String()} }),
	"backend": backendAddresses,
}

// argValues are those of arguments, by command.
var argValues = map[string]values{
	"drops":   dropReasons,
	"drain":   backendAddresses,
	"undrain": drainedAddresses,
	"flows":   servedNames(func(f *lb.Frontend) []string { return []string{netip.AddrPortFrom(f.Addr, f.Port).String()} }),
	"trace":   servedNames(func(f *lb.Frontend) []string { return []string{f.Key().String()} }),
}

// fileFlagNames are flags whose values are files, or directories.
var fileFlagNames = []string{"filename", "kubeconfig", "ca-file", "key", "verify-key", "peer-key", "seed-file", "bytecode", "dir", "file", "output-file", "maps", "state-dir",
	"run-dir", "bpffs", "config", "bpfman-socket", "flow-log", "metrics-token-file", "http-token-file", "http-tls-cert", "http-tls-key", "tls-dir", "token-file", "netns", "prefix"}

// completeValues has shells complete the values of flags and arguments, for the command and
// all below.
func completeValues(c *cobra.Command) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		v := flagValues[f.Name]
		switch {
		case c.Name() == "check" && f.Name == "backend" || c.Name() == "run" && f.Name == "backend":
			v = among()
		case f.Name == "output" && c.Flags().Lookup("output-file") == nil:
			v = among(strings.Split(strings.NewReplacer(", ", "|", " or ", "|").Replace(f.Usage), "|")...)
		case strings.Contains(f.Value.Type(), "|"):
			v = among(strings.Split(f.Value.Type(), "|")...)
		case v == nil && slices.Contains(fileFlagNames, f.Name):
			return
		case v == nil:
			v = among()
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, v.complete) // it fails if the command has done so itself
	})
	if v, is := argValues[c.Name()]; is && c.ValidArgsFunction == nil {
		c.ValidArgsFunction = v.complete
	}
	for _, below := range c.Commands() {
		completeValues(below)
	}
}

func (v values) complete(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	all := slices.DeleteFunc(slices.Clone(v(c)), func(text string) bool {
		// Names are others': none may be more than a word to a shell.
		return text == "" || !strings.HasPrefix(text, begun) || phrase.Printable(text) != text || strings.ContainsAny(text, " \t'\"\\$`;&|<>(){}*?!#~")
	})
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}

func dropReasons(*cobra.Command) (all []string) {
	for _, r := range observe.Reasons {
		all = append(all, r.Name)
	}
	return all
}

// text returns the value of a flag, or a default if the command does not have it.
func text(c *cobra.Command, flag, otherwise string) string {
	if f := c.Flags().Lookup(flag); f != nil {
		return f.Value.String()
	}
	return otherwise
}

func loadBalancers(c *cobra.Command) []string {
	r := overview.Reader{BPFFS: text(c, "bpffs", loader.DefaultBPFFS), RunDir: text(c, "run-dir", loader.DefaultRunDir)}
	return r.Names()
}

// servedNames returns what each frontend has that a load balancer of this host serves.
func servedNames(of func(*lb.Frontend) []string) values {
	return func(c *cobra.Command) (all []string) {
		runDir, names := text(c, "run-dir", loader.DefaultRunDir), []string{text(c, "name", "")}
		if names[0] == "" {
			names = loadBalancers(c)
		}
		for _, name := range names {
			record, err := writer.LoadRecord(standalone.StateFile(runDir, name))
			if err != nil { // nobody asked for it: nothing is completed
				continue
			}
			for i := range record.State.Frontends {
				all = append(all, of(&record.State.Frontends[i])...)
			}
		}
		return all
	}
}

func backendAddresses(c *cobra.Command) []string {
	return servedNames(func(f *lb.Frontend) (all []string) {
		for _, b := range f.Backends {
			all = append(all, b.Addr.String())
		}
		return all
	})(c)
}

func drainedAddresses(c *cobra.Command) (all []string) {
	set, err := standalone.ReadDrained(standalone.DrainedFile(text(c, "run-dir", loader.DefaultRunDir), text(c, "name", loader.DefaultName)))
	if err != nil {
		return nil
	}
	for at := range set {
		all = append(all, standalone.DrainedName(at))
	}
	return all
}

func contexts(c *cobra.Command) (all []string) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = text(c, "kubeconfig", "")
	config, err := rules.Load()
	if err != nil {
		return nil
	}
	for name := range config.Contexts {
		all = append(all, name)
	}
	return all
}

// nodes returns those of the cluster that the command's flags name.
func nodes(c *cobra.Command) (all []string) {
	flags := clusterFlags{kubeconfig: text(c, "kubeconfig", ""), context: text(c, "context", ""), as: text(c, "as", "")}
	config, err := flags.config()
	if err != nil {
		return nil
	}
	config.Timeout = completionLimit
	as, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil
	}
	// One request: discovery of kinds would take several, and nobody may have to wait.
	text, err := as.RESTClient().Get().AbsPath("/apis", v1alpha1.GroupVersion.String(), "nodedataplanes").DoRaw(c.Context())
	var list v1alpha1.NodeDataplaneList
	if err != nil || json.Unmarshal(text, &list) != nil {
		return nil
	}
	for i := range list.Items {
		all = append(all, list.Items[i].Name)
	}
	return all
}
