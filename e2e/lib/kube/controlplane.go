// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
)

// Issuer is the issuer, and the audience unless another is asked for, of the
// tokens of ServiceAccounts.
const Issuer = "https://kubernetes.default.svc"

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// startEtcd starts an etcd that listens on sockets in the server's folder and does not
// sync to disk.
func (s *Server) startEtcd() (err error) {
	clients, peers := s.socket("etcd.sock"), s.socket("peer.sock")
	s.etcd, err = s.run(etcd, "etcd", "--data-dir="+s.path("data"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
	return err
}

func (s *Server) socket(name string) string { return "unix://" + s.path(name) }

// startAPI starts an API server at an address of its own in 127.0.0.0/8, so that its
// port is free, and sets Config.
func (s *Server) startAPI() error {
	var r [3]byte
	_, _ = rand.Read(r[:])
	ip := netip.AddrFrom4([4]byte{127, r[0], r[1], r[2] | 2}).String()
	token := rand.Text()
	if err := os.WriteFile(s.path("tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	accounts := s.path("accounts.key")
	if err := os.WriteFile(accounts, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	s.Config = &rest.Config{
		Host:        fmt.Sprintf("https://%s:6443", ip),
		BearerToken: token,
		// The server makes a certificate for its address, and signs it itself.
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.path("certificates/apiserver.crt")},
		QPS:             -1, // no limit
	}
	s.api, err = s.run(kubernetes, "kube-apiserver", "--etcd-servers="+s.socket("etcd.sock"),
		"--bind-address="+ip, "--advertise-address="+ip, "--endpoint-reconciler-type=none", "--cert-dir="+s.path("certificates"),
		"--token-auth-file="+s.path("tokens.csv"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// Nobody makes the ServiceAccount that pods have by default.
		"--disable-admission-plugins=ServiceAccount",
		"--service-account-issuer="+Issuer, "--service-account-key-file="+accounts, "--service-account-signing-key-file="+accounts,
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112", "--allow-privileged")
	return err
}
