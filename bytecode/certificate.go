// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"crypto/x509"
	"encoding/asn1"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
)

// Where Fulcio's certificates name who has vouched for the identity: as a DER string, and
// as it is. https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
var (
	issuerOID    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	oldIssuerOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
)

// certified returns what the certificate of a bundle says: who signs, and which OpenID
// issuer vouches for that. Nothing of it is verified. Empty: there is no certificate.
func certified(m *bundlepb.VerificationMaterial) (identity, issuer string) {
	der := m.GetCertificate().GetRawBytes()
	if chain := m.GetX509CertificateChain().GetCertificates(); len(chain) > 0 {
		der = chain[0].GetRawBytes()
	}
	if len(der) == 0 {
		return "", ""
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return "a certificate that cannot be read", ""
	}
	return subjectName(certificate), issuerOf(certificate)
}

func subjectName(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return "a certificate of nobody"
}

func issuerOf(c *x509.Certificate) (issuer string) {
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(issuerOID):
			if _, err := asn1.Unmarshal(e.Value, &issuer); err == nil {
				return issuer
			}
		case e.Id.Equal(oldIssuerOID):
			issuer = string(e.Value)
		}
	}
	return issuer
}
