-- Versions that never fall, and word of every change to whoever listens on the channel template_changes.
--
-- template_changes has a row for each id that ever was, so a version goes on rising where a template is deleted and
-- made again. Its row lock lets one transaction at a time write an id: versions rise in the order of commits.

-- No write may fall between the copy of the versions and the triggers.
LOCK TABLE public.templates IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE public.template_changes (
    id      bigint      PRIMARY KEY,
    version bigint      NOT NULL,
    op      "char"      NOT NULL CHECK (op IN ('I', 'U', 'D')),
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who asks what was committed since a snapshot asks by this: neither the time nor the version is in commit order.
    xid     xid8        NOT NULL DEFAULT pg_current_xact_id()
);

INSERT INTO public.template_changes (id, version, op)
SELECT id, version, 'I' FROM public.templates;

CREATE INDEX template_changes_xid ON public.template_changes (xid);

-- All functions run with their owner's rights, so that whoever may write templates needs no rights on template_changes.

CREATE FUNCTION public.templates_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.id IS NULL THEN
        RETURN NEW; -- refused by the table
    END IF;

    INSERT INTO public.template_changes (id, version, op) VALUES (NEW.id, 1, 'I') ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
        NEW.version := 1;
        RETURN NEW;
    END IF;

    -- The id was there before. Where it still is, the insert is going to fail, or to turn into an update or nothing by
    -- ON CONFLICT: its version is not to rise here. Row locks are taken in the order in which UPDATE and DELETE take
    -- them, the template's first, or an upsert and an update of one id would deadlock.
    PERFORM FROM public.templates WHERE id = NEW.id FOR NO KEY UPDATE;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    -- From here on nobody else can insert it; somebody may have done so in between.
    PERFORM FROM public.template_changes WHERE id = NEW.id FOR UPDATE;
    PERFORM FROM public.templates WHERE id = NEW.id;
    IF FOUND THEN
        RETURN NEW;
    END IF;

    UPDATE public.template_changes
    SET version = version + 1, op = 'I', at = DEFAULT, xid = DEFAULT
    WHERE id = NEW.id
    RETURNING version INTO STRICT NEW.version;
    RETURN NEW;
END
$$;

CREATE FUNCTION public.templates_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.id IS DISTINCT FROM OLD.id THEN
        RAISE EXCEPTION 'the id of a template cannot be changed'
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Insert a new template and delete the old one.';
    END IF;
    -- The row is missing, or behind, where templates were written with triggers off, as pg_restore can do.
    INSERT INTO public.template_changes AS known (id, version, op) VALUES (OLD.id, OLD.version + 1, 'U')
    ON CONFLICT (id) DO UPDATE
        SET version = greatest(known.version + 1, EXCLUDED.version), op = 'U', at = EXCLUDED.at, xid = EXCLUDED.xid
    RETURNING version INTO STRICT NEW.version;
    RETURN NEW;
END
$$;

CREATE FUNCTION public.templates_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.template_changes AS known (id, version, op) VALUES (OLD.id, OLD.version + 1, 'D')
    ON CONFLICT (id) DO UPDATE
        SET version = greatest(known.version + 1, EXCLUDED.version), op = 'D', at = EXCLUDED.at, xid = EXCLUDED.xid;
    RETURN OLD;
END
$$;

CREATE FUNCTION public.templates_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        -- TRUNCATE also removes what this transaction's snapshot does not show.
        RAISE EXCEPTION 'templates can be truncated in a READ COMMITTED transaction only'
            USING ERRCODE = 'feature_not_supported', HINT = 'DELETE works at every isolation level.';
    END IF;
    INSERT INTO public.template_changes AS known (id, version, op)
    SELECT id, version + 1, 'D' FROM public.templates
    ON CONFLICT (id) DO UPDATE
        SET version = greatest(known.version + 1, EXCLUDED.version), op = 'D', at = EXCLUDED.at, xid = EXCLUDED.xid;
    IF FOUND THEN
        PERFORM pg_notify('template_changes', '*');
    END IF;
    RETURN NULL;
END
$$;

-- What a statement changed, as payloads "MILLISECONDS@id:version,id:version,…" of less than 7,900 bytes (NOTIFY takes
-- less than 8,000), or as one payload "*", "look in template_changes", for more than 1,000 ids. An item has 40 bytes at
-- most; before the items stands when the statement ended, since the epoch, so that the delay can be measured.
CREATE FUNCTION public.templates_announce() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    many constant integer := 1000;
    moment constant text := (extract(epoch FROM clock_timestamp()) * 1000)::bigint || '@';
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM changed LIMIT many + 1) AS first) > many THEN
        PERFORM pg_notify('template_changes', '*');
        RETURN NULL;
    END IF;
    PERFORM pg_notify('template_changes', moment || string_agg(item, ',' ORDER BY id))
    FROM (
        SELECT id, item, sum(octet_length(item) + 1) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS bytes_so_far
        FROM (
            -- A deleted row's own version is not that of its deletion.
            SELECT id, id || ':' || known.version AS item
            FROM (SELECT DISTINCT id FROM changed) AS ids JOIN public.template_changes AS known USING (id)
        ) AS items
    ) AS running
    GROUP BY bytes_so_far / 7800;
    RETURN NULL;
END
$$;

CREATE TRIGGER version_of_insert BEFORE INSERT ON public.templates
    FOR EACH ROW EXECUTE FUNCTION public.templates_inserted();
CREATE TRIGGER version_of_update BEFORE UPDATE ON public.templates
    FOR EACH ROW EXECUTE FUNCTION public.templates_updated();
CREATE TRIGGER version_of_delete BEFORE DELETE ON public.templates
    FOR EACH ROW EXECUTE FUNCTION public.templates_deleted();
CREATE TRIGGER version_of_truncate BEFORE TRUNCATE ON public.templates
    FOR EACH STATEMENT EXECUTE FUNCTION public.templates_truncated();

CREATE TRIGGER announce_insert AFTER INSERT ON public.templates REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.templates_announce();
CREATE TRIGGER announce_update AFTER UPDATE ON public.templates REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.templates_announce();
CREATE TRIGGER announce_delete AFTER DELETE ON public.templates REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.templates_announce();
