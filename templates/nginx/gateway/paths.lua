--- The paths that are let in; nothing else is answered, and no other path reaches an engine.

-- Asked of an engine. `form`: the body may be a form with files. `extra`: only where a model's own list has it.
local ASKED = {
    ["/v1/chat/completions"] = {},
    ["/v1/completions"] = {},
    ["/v1/embeddings"] = {},
    ["/v1/rerank"] = {},
    ["/v1/responses"] = { extra = true },
    ["/v1/score"] = { extra = true },
    ["/v1/messages"] = { extra = true },
    ["/v1/messages/count_tokens"] = { extra = true },
    ["/v1/audio/transcriptions"] = { extra = true, form = true },
    ["/v1/audio/translations"] = { extra = true, form = true },
    ["/v1/audio/speech"] = { extra = true },
    ["/v1/images/generations"] = { extra = true },
    ["/v1/images/edits"] = { extra = true, form = true },
    ["/v1/images/variations"] = { extra = true, form = true },
    ["/tokenize"] = { extra = true },
    ["/detokenize"] = { extra = true },
    ["/api/chat"] = { extra = true },
    ["/api/generate"] = { extra = true },
    ["/api/embed"] = { extra = true },
}
-- Other names that clients have for them.
local SAME = { ["/rerank"] = "/v1/rerank", ["/score"] = "/v1/score" }
-- Answered by the gateway itself.
local OWN = { "/health", "/v1/models", "/api/tags", "/metrics", "/gateway/stat", "/gateway/engines" }

local known = {}
for path, one in pairs(ASKED) do
    known[path] = { path = path, quoted = '"' .. path .. '"', method = "POST", form = one.form, extra = one.extra }
end
for path, other in pairs(SAME) do
    known[path] = known[other]
end
for _, path in ipairs(OWN) do
    known[path] = { path = path, method = "GET", own = path }
end
known["/gateway/drain"] = { path = "/gateway/drain", method = "POST", own = "/gateway/drain", inside = true }
local ONE_MODEL = { path = "/v1/models/*", method = "GET", own = "/v1/models/*" }
local ONE_ENGINE = { path = "/gateway/engines/*/metrics", method = "GET", own = "/gateway/engines/*/metrics" }
local ALONE = { ["/health"] = true, ["/metrics"] = true, ["/gateway/stat"] = true, ["/gateway/engines"] = true, ["/gateway/drain"] = true }

local M = {}

--- Answers a path by the gateway itself from now on, or no longer.
function M.own(path, on)
    known[path] = on and { path = path, method = "GET", own = path } or nil
    ALONE[path] = true
end

--- The entry of a path, and the model that the path names, if it names one.
function M.resolve(uri)
    local found = known[uri]
    if found then
        return found
    end
    local prefix, path = uri:match("^/([^/]+)(/.+)$")
    if not prefix then
        return nil
    end
    local item = uri:match("^/v1/models/([^/]+)$")
    if item then
        return ONE_MODEL, item
    elseif prefix == "v1" or prefix == "api" then
        return nil
    elseif prefix == "gateway" then
        item = path:match("^/engines/([^/]+)/metrics$")
        return item and ONE_ENGINE, item
    end
    found = known[path]
    if found and not ALONE[path] then
        return found, prefix
    end
    item = path:match("^/v1/models/([^/]+)$")
    if item == prefix then
        return ONE_MODEL, item
    end
end

--- The engine's path for one of ours; nil where the model is not asked that.
function M.upstream(model, entry)
    if model.paths then
        return model.paths[entry.path]
    end
    return not entry.extra and entry.path or nil
end

return M
