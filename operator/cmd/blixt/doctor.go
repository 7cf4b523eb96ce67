// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/checkup"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func doctorCommand() *cobra.Command {
	var cluster clusterFlags
	var reader hostFlags
	var output format
	var explain string
	c := &cobra.Command{
		Use:   "doctor [host|cluster]",
		Short: "Find what keeps Blixt from working in a cluster or on a host, and how to repair it",
		Long: `Examines a Kubernetes cluster through its API server, or this host, and writes
nothing. There is a check for each precondition of Blixt and for each known defect of
bpfman. A check reports a verdict (ok, warning, failed, unknown), what it has seen, and
a remedy. Without an argument, it is the host if load balancers of blixt run are on it
and nothing names a cluster, neither a flag nor KUBECONFIG.

Of a host it examines the kernel, forwarding, reverse path filters, who answers ARP, MTUs,
firewall rules that surely drop packets, Docker's among them, and those that are meant to
restrict a frontend and do not hold for it, IPsec policies, and how each load balancer is.
It needs root for some.

With --explain the command examines nothing, and says of a check what it looks at, what
its verdicts mean, how that usually comes about and what to do.

Exits with 1 if a check has failed, and with 2 if the cluster cannot be reached.

The API server does not know everything. If a node drops packets although all
checks are ok, examine on the node: reverse path filters (rp_filter=1 with several
interfaces), forwarding (net.ipv4.ip_forward), and firewalls that drop packets
of state invalid while net.bridge.bridge-nf-call-iptables is 1.`,
		Example: `  blixt doctor
  sudo blixt doctor host
  blixt doctor --explain rp-filter
  blixt doctor --context production -o json | jq '.findings[] | select(.verdict != "ok")'`,
		ValidArgs: places,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			if explain != "" {
				return explainCheck(c.OutOrStdout(), explain, args)
			}
			findings, err := []finding.Finding(nil), error(nil)
			if reader.isMeant(args, c.Flags()) {
				findings, err = examineHost(c.Context(), &reader.Reader)
			} else {
				findings, err = examineCluster(c.Context(), &cluster)
			}
			if err != nil {
				return err
			}
			all := map[string]any{"findings": findings, "summary": summary(findings)}
			if err := output.print(c.OutOrStdout(), all, func(w io.Writer) { findingTable(w, findings) }); err != nil {
				return err
			}
			if n := finding.Count(findings, finding.Failed); n > 0 {
				return fmt.Errorf("%d checks failed: apply the remedies, from the top; blixt doctor --explain CHECK says more", n)
			}
			return nil
		},
	}
	f := c.Flags()
	cluster.add(f)
	output.add(f)
	reader.add(f)
	f.StringVar(&explain, "explain", "", "explain the check of this name instead: what it looks at, cause and cure")
	return c
}

func examineCluster(ctx context.Context, cluster *clusterFlags) ([]finding.Finding, error) {
	kube, version, err := cluster.connect()
	if err != nil {
		return nil, err
	}
	facts, err := doctor.Read(ctx, kube, version, cluster.namespace)
	if err != nil {
		return nil, &exitError{unreachable, err}
	}
	return doctor.Check(facts), nil
}

// examineHost examines this host, and how its load balancers are.
func examineHost(ctx context.Context, r *overview.Reader) ([]finding.Finding, error) {
	host := r.Read()
	facts, err := checkup.Read(ctx, host, r.RunDir)
	if err != nil {
		return nil, &exitError{unreachable, err}
	}
	findings := checkup.Check(facts)
	if len(host.Instances) > 0 || len(host.Unread) > 0 {
		how := host.Check()
		if len(how) == 0 {
			how = []finding.Finding{{Check: "load-balancers", Verdict: finding.OK, Seen: phrase.Count(len(host.Instances), "load balancer") + ": processes make changes, files are valid, backends serve"}}
		}
		for _, f := range how { // processes say some of it, too
			if !slices.ContainsFunc(findings, func(g finding.Finding) bool { return g.Seen == f.Seen }) {
				findings = append(findings, f)
			}
		}
	}
	return findings, nil
}

func summary(all []finding.Finding) map[finding.Level]int {
	counts := map[finding.Level]int{}
	for _, v := range finding.Levels {
		counts[v] = finding.Count(all, v)
	}
	return counts
}

// findingTable prints one line for each finding, and its remedy below.
func findingTable(w io.Writer, all []finding.Finding) {
	t, flush := newTable(w)
	t.printf("CHECK\tVERDICT\tSEEN\n")
	for _, f := range all {
		seen := f.Seen
		if f.Object != "" {
			seen = f.Object + ": " + seen
		}
		t.printf("%s\t%s\t%s\n", f.Check, f.Verdict, seen)
		if f.Remedy != "" {
			t.printf("\t\t→ %s\n", f.Remedy)
		}
	}
	flush()
	s := summary(all)
	fmt.Fprintf(w, "\n%d ok, %d warnings, %d failed, %d unknown\n", s[finding.OK], s[finding.Warning], s[finding.Failed], s[finding.Unknown])
}
