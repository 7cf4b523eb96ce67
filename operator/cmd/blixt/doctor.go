// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/finding"
)

func doctorCommand() *cobra.Command {
	var cluster clusterFlags
	var output format
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find what keeps Blixt from working in a cluster, and how to repair it",
		Long: `Examines a Kubernetes cluster through its API server, and writes nothing. There is
a check for each precondition of Blixt and for each known defect of bpfman. A check
reports a verdict (ok, warning, failed, unknown), what it has seen, and a remedy.

Exits with 1 if a check has failed, and with 2 if the cluster cannot be reached.

The API server does not know everything. If a node drops packets although all
checks are ok, examine on the node: reverse path filters (rp_filter=1 with several
interfaces), forwarding (net.ipv4.ip_forward), and firewalls that drop packets
of state invalid while net.bridge.bridge-nf-call-iptables is 1.`,
		Example: `  blixt doctor
  blixt doctor --context production -o json | jq '.findings[] | select(.verdict != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			kube, version, err := cluster.connect()
			if err != nil {
				return err
			}
			facts, err := doctor.Read(c.Context(), kube, version, cluster.namespace)
			if err != nil {
				return &exitError{unreachable, err}
			}
			findings := doctor.Check(facts)
			all := map[string]any{"findings": findings, "summary": summary(findings)}
			if err := output.print(c.OutOrStdout(), all, func(w io.Writer) { findingTable(w, findings) }); err != nil {
				return err
			}
			if n := finding.Count(findings, finding.Failed); n > 0 {
				return fmt.Errorf("%d checks failed: apply the remedies, from the top", n)
			}
			return nil
		},
	}
	f := c.Flags()
	cluster.add(f)
	output.add(f)
	return c
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
