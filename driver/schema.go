package driver

import "github.com/hashicorp/nomad/plugins/shared/hclspec"

// taskConfigSpec is spec.Config in HCL.
func taskConfigSpec() *hclspec.Spec {
	fields := map[string]*hclspec.Spec{
		"code":                 attr("code", "string"),
		"timeout":              attr("timeout", "string"),
		"startup_timeout":      attr("startup_timeout", "string"),
		"concurrency":          attr("concurrency", "number"),
		"max_pending":          attr("max_pending", "number"),
		"max_running":          attr("max_running", "number"),
		"queue_timeout":        attr("queue_timeout", "string"),
		"cancel_on_disconnect": attr("cancel_on_disconnect", "bool"),
		"build": block("build", map[string]*hclspec.Spec{
			"context":    attr("context", "string"),
			"dockerfile": attr("dockerfile", "string"),
			"file":       attr("file", "string"),
			"target":     attr("target", "string"),
			"args":       attr("args", "list(map(string))"),
			"secrets":    attr("secrets", "list(map(string))"),
			"name":       attr("name", "string"),
			"push":       attr("push", "string"),
			"no_cache":   attr("no_cache", "bool"),
			"disk":       attr("disk", "number"),
			"timeout":    attr("timeout", "string"),
		}),
		"methods": attr("methods", "list(string)"),
		"secrets": attr("secrets", "list(string)"),
		"volume": hclspec.NewBlockList("volume", hclspec.NewObject(map[string]*hclspec.Spec{
			"name":     hclspec.NewAttr("name", "string", true),
			"target":   hclspec.NewAttr("target", "string", true),
			"readonly": attr("readonly", "bool"),
			"source":   attr("source", "string"),
		})),
		"batching": block("batching", map[string]*hclspec.Spec{
			"max_size": attr("max_size", "number"),
			"wait":     attr("wait", "string"),
		}),
		"rate": block("rate", map[string]*hclspec.Spec{
			"per_second": attr("per_second", "number"),
			"burst":      attr("burst", "number"),
		}),
		"parameter": hclspec.NewBlockList("parameter", hclspec.NewObject(map[string]*hclspec.Spec{
			"name":    hclspec.NewAttr("name", "string", true),
			"type":    hclspec.NewAttr("type", "string", true),
			"default": attr("default", "string"),
		})),
		"schedule": hclspec.NewBlockList("schedule", hclspec.NewObject(map[string]*hclspec.Spec{
			"name":      attr("name", "string"),
			"cron":      attr("cron", "string"),
			"time_zone": attr("time_zone", "string"),
			"every":     attr("every", "string"),
			"method":    attr("method", "string"),
			"input":     attr("input", "string"),
			"missed":    attr("missed", "string"),
		})),
		"handler": block("handler", map[string]*hclspec.Spec{
			"type":  hclspec.NewAttr("type", "string", true),
			"entry": attr("entry", "string"),
			"port":  attr("port", "number"),
			"ready": attr("ready", "string"),
			"live":  attr("live", "string"),
		}),
		"retries": block("retries", map[string]*hclspec.Spec{
			"max":       attr("max", "number"),
			"backoff":   attr("backoff", "number"),
			"initial":   attr("initial", "string"),
			"max_delay": attr("max_delay", "string"),
			"on":        attr("on", "list(string)"),
		}),
		"snapshot": block("snapshot", map[string]*hclspec.Spec{
			"enabled": attr("enabled", "bool"),
			"gpu":     attr("gpu", "bool"),
		}),
		"web": block("web", map[string]*hclspec.Spec{
			"enabled": attr("enabled", "bool"),
			"public":  attr("public", "bool"),
			"domains": attr("domains", "list(string)"),
			"origins": attr("origins", "list(string)"),
		}),
		"network": block("network", map[string]*hclspec.Spec{
			"egress": attr("egress", "bool"),
			"allow":  attr("allow", "list(string)"),
		}),
	}
	for name, field := range containerSpec() {
		fields[name] = field
	}
	return hclspec.NewObject(fields)
}

// containerSpec is spec.Container in HCL.
func containerSpec() map[string]*hclspec.Spec {
	fields := map[string]*hclspec.Spec{
		"auth": block("auth", map[string]*hclspec.Spec{
			"username":       attr("username", "string"),
			"password":       attr("password", "string"),
			"server_address": attr("server_address", "string"),
		}),
		"writable": block("writable", map[string]*hclspec.Spec{
			"medium": attr("medium", "string"),
			"size":   attr("size", "number"),
		}),
		"mount": hclspec.NewBlockList("mount", hclspec.NewObject(map[string]*hclspec.Spec{
			"type":     attr("type", "string"),
			"source":   attr("source", "string"),
			"target":   hclspec.NewAttr("target", "string", true),
			"readonly": attr("readonly", "bool"),
			"tmpfs_options": hclspec.NewBlockList("tmpfs_options", hclspec.NewObject(map[string]*hclspec.Spec{
				"size": attr("size", "number"),
				"mode": attr("mode", "number"),
			})),
		})),
		"ulimit": attr("ulimit", "list(map(string))"),
		"labels": attr("labels", "list(map(string))"),
		"logging": hclspec.NewBlockList("logging", hclspec.NewObject(map[string]*hclspec.Spec{
			"type":   attr("type", "string"),
			"driver": attr("driver", "string"),
			"config": attr("config", "list(map(string))"),
		})),
	}
	for kind, names := range map[string][]string{
		"string":       {"image", "image_pull_timeout", "command", "work_dir", "hostname", "network_mode"},
		"list(string)": {"entrypoint", "args", "cap_add", "cap_drop", "group_add", "ports", "dns_servers", "dns_search_domains", "dns_options", "extra_hosts", "volumes"},
		"number":       {"pids_limit", "shm_size", "memory_hard_limit"},
		"bool":         {"force_pull", "tty", "readonly_rootfs", "cpu_hard_limit", "interactive", "init"},
	} {
		for _, name := range names {
			fields[name] = attr(name, kind)
		}
	}
	return fields
}

func attr(name, kind string) *hclspec.Spec { return hclspec.NewAttr(name, kind, false) }

func block(name string, fields map[string]*hclspec.Spec) *hclspec.Spec {
	return hclspec.NewBlock(name, false, hclspec.NewObject(fields))
}
