// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// audited is the part of blixt audit's report that this test compares.
type audited struct {
	Programs []struct {
		Node  string
		Links []struct {
			Direction string
			LinkID    uint32
		}
	}
	Images []struct {
		VerifiedBy []string
		Problem    string
	}
	Problems []problem
}

type problem struct{ Severity, Reason, Object, Node, Message string }

// auditor runs blixt audit in the network in which the registry is reached.
type auditor struct {
	*testing.T
	blixt, image string
	// private and public are the files of a key.
	private, public string
	env             []string
}

// testAudit changes what runs behind the operator's back, in every way that an audit
// has to notice, and undoes it.
func testAudit(t *testing.T, image string) {
	a := &auditor{T: t, image: image, env: outsiderEnv(t), blixt: builtBlixt(t)}
	a.makeKey()
	a.want("--offline")
	t.Run("images", func(t *testing.T) { a.in(t).images() })
	t.Run("objects", func(t *testing.T) { a.in(t).objects(rollout.Name(image)) })
	if *long {
		t.Run("kernels", func(t *testing.T) { a.in(t).kernels(rollout.Name(image)) })
	}
	a.want("--ca-file", c.CA(), "--verify-key", a.public)
}

func (a *auditor) in(t *testing.T) *auditor {
	b := *a
	b.T = t
	return &b
}

// images changes what the registry holds of the images.
func (a *auditor) images() {
	image := "image " + a.image
	a.find("ImageUnread", image, "is not trusted", "--verify-key", a.public)
	a.find("ImageNotVerified", image, "", "--ca-file", c.CA(), "--verify-key", a.public)
	if _, err := c.Control.Run(patience, a.blixt, "bytecode", "sign", a.image, "--key", a.private, "--ca-file", c.CA()); err != nil {
		a.Fatal(err)
	}
	r := a.report("--ca-file", c.CA(), "--verify-key", a.public)
	if len(r.Images) != 1 || len(r.Images[0].VerifiedBy) != 1 || r.Images[0].Problem != "" {
		a.Errorf("after it was signed: %+v, want that the key has verified it", r.Images)
	}
	layer := a.layer()
	if err := os.Rename(layer, layer+".away"); err != nil {
		a.Fatal(err)
	}
	defer func() {
		if err := os.Rename(layer+".away", layer); err != nil {
			a.Error(err)
		}
	}()
	a.find("ImageNotFound", image, "has no image", "--ca-file", c.CA(), "--verify-key", a.public)
}

// layer returns the registry's file of the image's layer: its largest blob.
func (a *auditor) layer() (file string) {
	dir := filepath.Join(a.TempDir(), "image")
	if _, err := c.Control.Run(patience, a.blixt, "bytecode", "pull", a.image, "-d", dir, "--ca-file", c.CA()); err != nil {
		a.Fatal(err)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil {
		a.Fatal(err)
	}
	largest := int64(0)
	for _, b := range blobs {
		if info, err := b.Info(); err == nil && info.Size() > largest {
			largest, file = info.Size(), filepath.Join(c.Dir(), "control-plane/registry/sha256", b.Name())
		}
	}
	return file
}

// objects changes objects while the operator is down and cannot restore them.
func (a *auditor) objects(application string) {
	runKubectl(a.T, "-n "+system+" scale deployment blixt-operator --replicas=0",
		"-n "+system+" wait pods --for=delete --selector=app.kubernetes.io/component=operator")
	repository, _, _ := strings.Cut(a.image, "@")
	other := repository + "@sha256:" + strings.Repeat("9", 64)
	former := "ClusterBpfApplication " + application

	runKubectl(a.T, `patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"bytecode":{"image":"`+other+`"}}}}`)
	a.find("ImageNotFound", "image "+other, "has no image", "--ca-file", c.CA())
	a.find("OldGeneration", former, "it takes new connections on node-1, node-2")
	a.find("ProgramMissing", "Node node-2", "which is declared")
	a.agree()
	runKubectl(a.T, `patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"bytecode":null}}}`,
		`patch clusterbpfapplication `+application+` --type=merge -p {"spec":{"byteCode":{"image":{"url":"`+other+`"}}}}`)
	a.find("AnotherDigest", former, "which is not the image that it was made for")
	a.find("ForeignManager", former, "kubectl-patch")

	runKubectl(a.T, "-n "+system+" scale deployment blixt-operator --replicas=2")
	awaitPods(a.T, system)
	a.gone("AnotherDigest")
	a.gone("OldGeneration")
	a.gone("ForeignManager")
}

// kernels gives nodes other programs, links and maps than the objects tell of.
func (a *auditor) kernels(application string) {
	unloaded, detached := c.Nodes[0], c.Nodes[1]
	// bpfman's agents would load and attach again what is missing.
	signalAll(a.T, "-STOP", "/bpfman-agent ")
	daemon(a.T, unloaded, "unload", fmt.Sprint(programID(a.T, unloaded.Name, application)))
	for _, id := range ingress(a.T, a, detached.Name) {
		daemon(a.T, detached, "detach", id)
	}
	// As if another agent had written its state.
	tables, err := datapath.Open(detached.File(fmt.Sprintf("/run/bpfman/fs/maps/%d", programID(a.T, detached.Name, application))))
	if err != nil {
		a.Fatal(err)
	}
	defer tables.Close()
	config, err := tables.Config()
	if err == nil {
		config.StateHash++
		err = tables.SetConfig(config)
	}
	if err != nil {
		a.Fatal(err)
	}
	a.await("ForeignWriter", "NodeDataplane "+detached.Name, "another writer had changed the maps")
	for _, m := range []*cluster.Machine{unloaded, detached} {
		a.await("NotReady", "NodeDataplane "+m.Name, "ProgramGone")
	}
	signalAll(a.T, "-CONT", "/bpfman-agent ")
	kubectl(a.T, "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon")
	awaitPods(a.T, "bpfman")
	// Agents report the foreign writer for a while, or until they are restarted.
	kubectl(a.T, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=agent")
	awaitPods(a.T, system)
}

// run runs blixt audit, which has to fail exactly if the report has a failure.
func (a *auditor) run(output string, args ...string) string {
	a.Helper()
	cmd := c.Control.Node.Command(a.Context(), a.blixt, append([]string{"audit", "--output", output}, args...)...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = a.env, &out, &errs
	err := c.Control.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	code, said := cmd.ProcessState.ExitCode(), strings.Contains(errs.String(), "not as declared")
	clean, drifted := err == nil && !said, code == 1 && said
	if !clean && !drifted {
		a.Fatalf("blixt audit %v: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return out.String()
}

func (a *auditor) report(args ...string) (r audited) {
	a.Helper()
	if len(args) == 0 {
		args = []string{"--offline"}
	}
	return a.parse(json.Unmarshal, a.run("json", args...))
}

func (a *auditor) parse(unmarshal func([]byte, any) error, text string) (r audited) {
	a.Helper()
	if err := unmarshal([]byte(text), &r); err != nil {
		a.Fatal(err)
	}
	// installBlixt signs nothing: TestReadme does.
	r.Problems = slices.DeleteFunc(r.Problems, func(p problem) bool { return p.Reason == "NoKeys" })
	return r
}

// want audits until the report has no problem.
func (a *auditor) want(args ...string) {
	a.Helper()
	kube.Wait(a.T, 2*patience, "problems", []problem{}, func() ([]problem, error) { return a.report(args...).Problems, nil })
}

// find fails the test unless the report has a problem now.
func (a *auditor) find(reason, object, message string, args ...string) {
	a.Helper()
	if r := a.report(args...); !has(r, reason, object, message) {
		a.Errorf("want %s of %s with %q, got %+v", reason, object, message, r.Problems)
	}
}

// await waits until the report has a problem.
func (a *auditor) await(reason, object, message string) {
	a.Helper()
	kube.Wait(a.T, 3*patience, reason+" of "+object, true, func() (bool, error) { return has(a.report(), reason, object, message), nil })
}

// gone waits until no problem has a reason.
func (a *auditor) gone(reason string) {
	a.Helper()
	kube.Wait(a.T, patience, reason, false, func() (bool, error) { return has(a.report(), reason, "", ""), nil })
}

func has(r audited, reason, object, message string) bool {
	return slices.ContainsFunc(r.Problems, func(p problem) bool {
		return p.Severity == "failed" && p.Reason == reason && strings.HasPrefix(p.Object, object) && strings.Contains(p.Message, message)
	})
}

// agree compares the three output formats of a report.
func (a *auditor) agree() {
	want := a.report()
	got := a.parse(func(text []byte, to any) error { return yaml.Unmarshal(text, to) }, a.run("yaml", "--offline"))
	if diff := cmp.Diff(want, got); diff != "" {
		a.Errorf("YAML is not as JSON is (-JSON +YAML):\n%s", diff)
	}
	table := a.run("table", "--offline")
	for _, p := range want.Problems {
		for line := range strings.Lines(table) {
			fields := strings.Fields(line)
			if len(fields) > 1 && fields[0] == p.Severity && fields[1] == p.Reason && strings.Contains(line, p.Object) && strings.Contains(line, p.Message) {
				p.Reason = ""
				break
			}
		}
		if p.Reason != "" {
			a.Errorf("the table does not say %+v:\n%s", p, table)
		}
	}
}

// makeKey makes a key pair, as openssl does.
func (a *auditor) makeKey() {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	dir := a.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			a.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalECPrivateKey(secret)
	a.private = write("blixt.key", "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(&secret.PublicKey)
	a.public = write("blixt.pub", "PUBLIC KEY", der, err)
}

// daemon runs a command of bpfman on a node, as its administrator can.
func daemon(t *testing.T, m *cluster.Machine, args ...string) {
	t.Helper()
	kubectl(t, append([]string{"--namespace=bpfman", "exec", daemonOn(t, m), "--container=bpfman", "--", "/usr/local/sbin/bpfman"}, args...)...)
}

// ingress returns the ids of a node's links at ingress.
func ingress(t *testing.T, a *auditor, node string) (ids []string) {
	t.Helper()
	for _, p := range a.report().Programs {
		for _, l := range p.Links {
			if p.Node == node && l.Direction == "Ingress" {
				ids = append(ids, fmt.Sprint(l.LinkID))
			}
		}
	}
	if len(ids) == 0 {
		t.Fatalf("no links at ingress on %s", node)
	}
	return ids
}
