// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// pki is an authority that writes keys and certificates into a folder.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newPKI makes an authority: ca.crt and ca.key.
func newPKI(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &pki{dir: dir}
	p.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "test cluster"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	key, err := p.write("ca", p.cert)
	if err != nil {
		return nil, err
	}
	p.key = key
	return p, nil
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// write writes a key and its certificate, signed by the authority. The authority's own
// certificate is self-signed.
func (p *pki) write(name string, c *x509.Certificate) (*ecdsa.PrivateKey, error) {
	key, err := p.writeKey(name)
	if err != nil {
		return nil, err
	}
	signer := p.key
	if signer == nil {
		signer = key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, c, p.cert, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", name, err)
	}
	return key, writePEM(p.path(name+".crt"), "CERTIFICATE", der)
}

func (p *pki) writeKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(p.path(name+".key"), "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// server makes a certificate for names and addresses. A client called common may use it
// too, as the kubelet does.
func (p *pki) server(name, common string, groups []string, hosts ...string) error {
	c := certificate(common, groups)
	c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	_, err := p.write(name, c)
	return err
}

// client makes a certificate for a user.
func (p *pki) client(name, common string, groups ...string) error {
	_, err := p.write(name, certificate(common, groups))
	return err
}

func certificate(common string, groups []string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: common, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// kubeconfig writes a file with all that the user of a certificate needs.
func (p *pki) kubeconfig(name, server string) error {
	user := clientcmdapi.NewAuthInfo()
	cluster := clientcmdapi.NewCluster()
	cluster.Server = server
	for file, data := range map[string]*[]byte{
		"ca.crt": &cluster.CertificateAuthorityData, name + ".crt": &user.ClientCertificateData, name + ".key": &user.ClientKeyData,
	} {
		var err error
		if *data, err = os.ReadFile(p.path(file)); err != nil {
			return err
		}
	}
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo = "blixt", name
	config := clientcmdapi.NewConfig()
	config.Clusters["blixt"], config.AuthInfos[name], config.Contexts["blixt"] = cluster, user, context
	config.CurrentContext = "blixt"
	return clientcmd.WriteToFile(*config, p.path(name+".kubeconfig"))
}
