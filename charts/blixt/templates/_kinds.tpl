{{- /* The CRDs in files, and what belongs to them, which the annotation blixt.x-k8s.io/chart tells from those that came
       otherwise: (dict "root" $ "files" "files/crds/*.yaml" "keep" true). One that
       exists and is not this release's is left as it is: Helm would fail. So is a newer
       one of Gateway API, and one of its experimental channel. Without a cluster, as in
       helm template, nothing exists. Argo CD keeps for resource-policy what an Application
       is deleted with, but not what its values no longer install. */}}
{{- define "blixt.kinds" }}
{{- range $path, $text := .root.Files.Glob .files }}
{{- $text = toString $text | trimPrefix "---\n" }}
{{- if eq (include "blixt.installsKind" (dict "root" $.root "kind" ($text | fromYaml))) "true" }}
---
{{ $text | replace "\nmetadata:\n  annotations:\n" (printf "\nmetadata:\n  annotations:\n    blixt.x-k8s.io/chart: %s\n%s" ($.root.Chart.Version | quote) ($.keep | ternary "    argocd.argoproj.io/sync-options: Prune=false\n    helm.sh/resource-policy: keep\n" "")) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" if an object of those in files is to be installed: (dict "root" $ "kind" object). */}}
{{- define "blixt.installsKind" }}
{{- $there := lookup .kind.apiVersion .kind.kind "" .kind.metadata.name }}
{{- if eq (include "blixt.mayInstall" (dict "root" .root "object" $there)) "true" }}
{{- $bundle := "gateway.networking.k8s.io/bundle-version" }}
{{- $ours := index .kind.metadata.annotations $bundle | default "v0.0.0" }}
{{- $theirs := dig "metadata" "annotations" $bundle $ours $there }}
{{- $channel := dig "metadata" "annotations" "gateway.networking.k8s.io/channel" "standard" $there }}
{{- if and (eq $channel "standard") (regexMatch "^v[0-9]+\\.[0-9]+\\.[0-9]+$" $theirs) (semverCompare (printf ">=%s" $theirs) $ours) -}}
true
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" if an object, as lookup returns it, does not exist or is this release's:
       (dict "root" $ "object" object). */}}
{{- define "blixt.mayInstall" }}
{{- if or (not .object) (eq (include "blixt.isOurs" .) "true") -}}
true
{{- end }}
{{- end }}

{{- define "blixt.isOurs" }}
{{- if .object }}
{{- $a := .object.metadata.annotations | default dict }}
{{- if and (eq (get $a "meta.helm.sh/release-name") .root.Release.Name) (eq (get $a "meta.helm.sh/release-namespace") .root.Release.Namespace) -}}
true
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" if the policy of Gateway API for safe upgrades may be installed, which is of a version:
       (dict "version" "v1.2.3"). It refuses every change to kinds that are older than itself, and
       those of the experimental channel in place of others: where somebody else has such kinds,
       it would lock the owner out. The kinds that this release upgrades are older until it
       has done so, and the policy comes with the upgrade after that. Else it would forbid what
       helm upgrade --rollback-on-failure (--atomic) does if the upgrade fails. */}}
{{- define "blixt.mayKeepUpgradesSafe" }}
{{- $ours := .version }}
{{- $may := true }}
{{- range tuple "backendtlspolicies" "gatewayclasses" "gateways" "grpcroutes" "httproutes" "listenersets" "referencegrants" "tcproutes" "tlsroutes" "udproutes" }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" (printf "%s.gateway.networking.k8s.io" .) }}
{{- if $there }}
{{- $theirs := dig "metadata" "annotations" "gateway.networking.k8s.io/bundle-version" "" $there }}
{{- $channel := dig "metadata" "annotations" "gateway.networking.k8s.io/channel" "" $there }}
{{- $may = and $may (eq $channel "standard") (regexMatch "^v[0-9]+\\.[0-9]+\\.[0-9]+$" $theirs) (semverCompare (printf ">=%s" $ours) $theirs) }}
{{- end }}
{{- end }}
{{- if $may -}}
true
{{- end }}
{{- end }}
