// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

func auditCommand() *cobra.Command {
	var cluster clusterFlags
	var output format
	var keys []string
	var offline bool
	var o bytecode.Options
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show which node runs which bytecode, and fail if anything is not as declared",
		Long: `Compares what is declared (in the BlixtConfig and the operator's arguments) with what
bpfman reports (ClusterBpfApplications and their states), what Blixt's agents
report (NodeDataplanes) and what registries hold (digests and signatures). Shows
which node runs which bytecode: its digest, who signed it, its program and links,
since when it runs, and who may change it. The command writes nothing.

Exits with 1 if anything is not as declared: another digest, a missing program or
link, a program that is not the agent's, a foreign writer of maps or of the objects
that bpfman acts on, a previous generation, an image that is not in its registry or
that no key has signed, a pod of another namespace that mounts Blixt's maps. Exits
with 2 if the cluster cannot be reached.

Signatures are verified with the verificationKeys of the BlixtConfig and the keys
that --verify-key names: one of them must have signed. Without any key, the command
lists the images and verifies no signature, and warns.`,
		Example: `  blixt audit
  blixt audit --verify-key cosign.pub -o json
  blixt audit --offline`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			given, err := readKeys(keys)
			if err != nil {
				return err
			}
			kube, _, err := cluster.connect()
			if err != nil {
				return err
			}
			facts, err := audit.Read(c.Context(), kube, cluster.namespace)
			if err != nil {
				return &exitError{unreachable, err}
			}
			if !offline {
				if err := facts.ReadImages(c.Context(), kube, o, given); err != nil {
					return err
				}
			}
			report := audit.Audit(facts)
			if err := output.print(c.OutOrStdout(), report, func(w io.Writer) { reportTable(w, report) }); err != nil {
				return err
			}
			if n := report.Failures(); n > 0 {
				return fmt.Errorf("%d things are not as declared, the first: %s: %s", n, report.Problems[0].Object, report.Problems[0].Message)
			}
			return nil
		},
	}
	f := c.Flags()
	cluster.add(f)
	output.add(f)
	f.StringArrayVar(&keys, "verify-key", nil, "public key in PEM with which to verify the bytecode's signatures, may be repeated")
	f.BoolVar(&offline, "offline", false, "do not connect to registries")
	registryFlags(f, &o)
	c.MarkFlagsMutuallyExclusive("offline", "verify-key")
	return c
}

// reportTable prints a report for people.
func reportTable(w io.Writer, r *audit.Report) {
	printer{w}.printf("Declared: %s\n\n", cmp.Or(r.Declared, "nothing: there is no GatewayClass of Blixt"))
	t, flush := newTable(w)
	t.printf("NODE\tDIGEST\tSIGNED BY\tPROGRAM\tLINKS\tLAYOUT\tSERVES\tSINCE\tWRITTEN\n")
	for _, p := range r.Programs {
		id, serves := "-", fmt.Sprintf("%d frontends, %d backends", p.Frontends, p.Backends)
		if p.ID != nil {
			id = fmt.Sprint(*p.ID)
		}
		if p.Draining {
			serves = "draining"
		}
		t.printf("%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", p.Node, short(p.Digest), cmp.Or(short(p.SignedBy), "-"), id, joinLinks(p.Links), p.Layout, serves, day(p.Since), day(p.AckedAt))
	}
	if len(r.Images) > 0 {
		t.printf("\nIMAGE\tLAYOUT\tVERIFIED BY\n")
		for _, im := range r.Images {
			t.printf("%s\t%d\t%s\n", im.Name, im.Layout, cmp.Or(strings.Join(im.VerifiedBy, ", "), im.Problem, "not verified"))
		}
	}
	t.printf("\nMAY CHANGE IT\tWHAT\tBY\n")
	for _, who := range r.Writers {
		by := "ClusterRoleBinding " + who.Binding
		if who.Namespace != "" {
			by = "RoleBinding " + who.Namespace + "/" + who.Binding
		}
		t.printf("%s\t%s\t%s, role %s\n", who.Subject, strings.Join(who.Resources, ", "), by, who.Role)
	}
	if len(r.Problems) > 0 {
		t.printf("\nPROBLEM\tREASON\tOBJECT\tMESSAGE\n")
		for _, p := range r.Problems {
			object := p.Object
			if p.Node != "" && !strings.HasSuffix(object, " "+p.Node) {
				object += " on " + p.Node
			}
			t.printf("%s\t%s\t%s\t%s\n", p.Severity, p.Reason, object, p.Message)
		}
	}
	flush()
	fmt.Fprintf(w, "\n%d programs on nodes, %d things not as declared, %d warnings\n", len(r.Programs), r.Failures(), len(r.Problems)-r.Failures())
}

func joinLinks(all []v1alpha1.LinkStatus) string {
	var words []string
	for _, l := range all {
		word := l.Interface + " " + strings.ToLower(l.Direction)
		if l.LinkID != nil {
			word += fmt.Sprintf(" %d", *l.LinkID)
		}
		words = append(words, word)
	}
	return cmp.Or(strings.Join(words, ", "), "none")
}

// short is the beginning of a digest or fingerprint.
func short(text string) string { return text[:min(len(text), len("sha256:")+12)] }

func day(t *metav1.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
