// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// The first lines of testdata say whose documentation shows such Services; the text is our own.
func TestServices(t *testing.T) { migratetest.Cases(t, migrate.Options{}, Read) }

// A dump of a large cluster, and one whose Services all want the same port of one address.
func TestThousandsOfServices(t *testing.T) {
	const count = 5000
	for name, annotation := range map[string]string{"each alone": "x", "one key": "metallb.io/allow-shared-ip"} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString("apiVersion: v1\nkind: List\nitems:\n")
			for i := range count {
				fmt.Fprintf(&b, "- {apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: shop, annotations: {%s: key}}, spec: {type: LoadBalancer, ports: [{port: 80}]}}\n", i, annotation)
				fmt.Fprintf(&b, "- {apiVersion: v1, kind: Service, metadata: {name: c%d, namespace: shop}, spec: {ports: [{port: 80}]}}\n", i)
			}
			start := time.Now()
			objects, notes := Read([]migrate.File{{Name: "stdin", Text: []byte(b.String())}}).Objects(migrate.Options{})
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("reading %d Services has taken %s", 2*count, took)
			}
			if len(objects) != 2*count {
				t.Errorf("%d objects, want a Gateway and a route for each of %d Services", len(objects), count)
			}
			passed := slices.ContainsFunc(notes, func(n migrate.Note) bool { return n.Text == "passed over: Service of type ClusterIP 5000" })
			if !passed {
				t.Error("the notes do not say how many Services were passed over")
			}
		})
	}
}

// Documentation shows what there is.
const page = "../../../docs/migrate/services.md"

func TestPageOfServices(t *testing.T) {
	migratetest.Page(t, page, "testdata/page")
}

// The table has every rule: what the documentation says of an annotation is what happens.
func TestAnnotationsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- annotations: TestAnnotationsAreDocumented writes this table with -update -->\n", "\n<!-- end of annotations -->"
	before, rest, _ := strings.Cut(string(text), begin)
	_, after, is := strings.Cut(rest, end)
	if !is {
		t.Fatalf("%s has no table of annotations", page)
	}
	golden.File(t, page, []byte(before+begin+table()+end+after))
}

// table lists the rules of all vendors. Annotations with the same prefix and effect share a row.
func table() string {
	var b strings.Builder
	b.WriteString("| Annotation | Becomes |\n|-|-|\n")
	for _, v := range vendors {
		fmt.Fprintf(&b, "| **%s** | |\n", v.name)
		rows := map[string][]string{}
		for _, key := range slices.Sorted(maps.Keys(v.rules)) {
			prefix, name, _ := strings.Cut(key, "/")
			if name, is := strings.CutPrefix(name, "aws-load-balancer-"); is && len(name) > 0 {
				prefix, key = prefix+"/aws-load-balancer-", name
			} else if name, is := strings.CutPrefix(name, "azure-"); is {
				prefix, key = prefix+"/azure-", name
			} else {
				prefix, key = prefix+"/", strings.TrimPrefix(key, prefix+"/")
			}
			row := prefix + "|" + v.rules[prefix+key].text
			rows[row] = append(rows[row], key)
		}
		for _, row := range slices.Sorted(maps.Keys(rows)) {
			prefix, text, _ := strings.Cut(row, "|")
			names := rows[row]
			first := prefix + names[0]
			cells := []string{"`" + first + "`"}
			for _, name := range names[1:] {
				cells = append(cells, "`…"+name+"`")
			}
			fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(cells, ", "), strings.ReplaceAll(text, "|", "\\|"))
		}
		if len(v.rules) == 0 {
			fmt.Fprintf(&b, "| of Hetzner, OpenStack, OVH, Oracle, Scaleway, DigitalOcean, Tencent, IBM, PureLB, and `service.beta.kubernetes.io/` | %s |\n", v.others.text)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
